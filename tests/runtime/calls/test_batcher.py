"""Questions of one tick as one message."""

from __future__ import annotations

import asyncio

import pytest

from runtime.calls.batcher import RequestBatcher
from runtime.errors import EngineFault


async def test_questions_of_one_tick_share_a_message_and_have_their_own_answers() -> None:
    messages: list[list[int]] = []

    async def send(batch: list[int]) -> list[int | Exception]:
        messages.append(batch)
        return [EngineFault("three") if one == 3 else one * 2 for one in batch]

    batcher: RequestBatcher[int, int] = RequestBatcher(send)
    results = await asyncio.gather(*map(batcher.submit, (1, 2, 3)), return_exceptions=True)
    assert results[:2] == [2, 4] and isinstance(results[2], EngineFault)
    assert await batcher.submit(4) == 8
    assert messages == [[1, 2, 3], [4]]


@pytest.mark.parametrize("fault", [ValueError("lost"), asyncio.CancelledError()])
async def test_whoever_waits_hears_of_a_message_that_is_lost(fault: BaseException) -> None:
    async def send(batch: list[int]) -> list[int | Exception]:
        raise fault

    batcher: RequestBatcher[int, int] = RequestBatcher(send)
    results = await asyncio.wait_for(
        asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True), timeout=5
    )
    wanted = ValueError if isinstance(fault, ValueError) else EngineFault
    assert [type(one) for one in results] == [wanted, wanted]


async def test_results_of_another_number_are_a_fault_for_all() -> None:
    async def send(batch: list[int]) -> list[int | Exception]:
        return [1]

    batcher: RequestBatcher[int, int] = RequestBatcher(send)
    results = await asyncio.wait_for(
        asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True), timeout=5
    )
    assert [str(one) for one in results] == ["1 results came for 2 items"] * 2


async def test_one_who_leaves_does_not_take_the_others_answer() -> None:
    ready = asyncio.Event()

    async def send(batch: list[int]) -> list[int | Exception]:
        await ready.wait()
        return list(batch)

    batcher: RequestBatcher[int, int] = RequestBatcher(send)
    stays, leaves = (asyncio.create_task(batcher.submit(n)) for n in (1, 2))
    await asyncio.sleep(0.01)
    leaves.cancel()
    ready.set()
    assert await stays == 1


async def test_what_comes_up_meanwhile_goes_with_the_next_message() -> None:
    ready = asyncio.Event()
    messages: list[list[int]] = []

    async def send(batch: list[int]) -> list[int | Exception]:
        messages.append(batch)
        await ready.wait()
        return list(batch)

    batcher: RequestBatcher[int, int] = RequestBatcher(send, at_once=2)
    asking = []
    for n in range(5):
        asking.append(asyncio.create_task(batcher.submit(n)))
        await asyncio.sleep(0.01)
    assert messages == [[0], [1]]
    asking.pop().cancel()
    ready.set()
    assert await asyncio.gather(*asking) == [0, 1, 2, 3]
    assert messages == [[0], [1], [2, 3]]


async def test_a_message_that_nobody_waits_for_holds_no_other_up() -> None:
    messages: list[list[int]] = []

    async def send(batch: list[int]) -> list[int | Exception]:
        messages.append(batch)
        if batch == [1]:
            await asyncio.Event().wait()
        return list(batch)

    batcher: RequestBatcher[int, int] = RequestBatcher(send)
    lost = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0.01)
    waits = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0.01)
    assert messages == [[1]]
    lost.cancel()
    assert await asyncio.wait_for(waits, timeout=5) == 2
