"""Concurrent callers share one computation."""

from __future__ import annotations

import asyncio

from runtime.vocab.single_flight import SingleFlight


async def test_a_caller_that_leaves_does_not_stop_the_others() -> None:
    once: SingleFlight[int] = SingleFlight(limit=1)
    go = asyncio.Event()
    made = []

    async def make() -> int:
        await go.wait()
        made.append(1)
        return len(made)

    leaves, stays = (asyncio.ensure_future(once.get("x", make)) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await stays == 1
    assert await once.get("x", make) == 1
    assert await once.get("y", make) == 2
    assert await once.get("x", make) == 3  # only one is kept
