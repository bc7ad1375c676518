"""Events travel together when they are there together, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from deployments.serving.event_batches import event_batches


async def test_what_comes_without_waiting_comes_together() -> None:
    async def events() -> AsyncIterator[int]:
        for number in range(6):
            if number in (1, 4):
                await asyncio.sleep(0.01)
            yield number

    assert [bunch async for bunch in event_batches(events())] == [[0], [1, 2, 3], [4, 5]]


async def test_a_fault_comes_after_what_came_before_it() -> None:
    async def events() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    seen: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        async for bunch in event_batches(events()):
            seen += bunch
    assert seen == [1]


async def test_nothing_gives_nothing() -> None:
    async def events() -> AsyncIterator[int]:
        for never in ():
            yield never

    assert [bunch async for bunch in event_batches(events())] == []


@pytest.mark.parametrize("cancel", [False, True])
async def test_whoever_leaves_ends_the_events(cancel: bool) -> None:
    ended = asyncio.Event()

    async def events() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(600)
        finally:
            ended.set()

    async def read() -> None:
        async with aclosing(event_batches(events())) as batches:
            async for _ in batches:
                if not cancel:
                    return

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    if cancel:
        reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert ended.is_set()
