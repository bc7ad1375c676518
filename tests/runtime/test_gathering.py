"""Questions of one tick as one message."""

from __future__ import annotations

import asyncio

import pytest

from runtime.errors import EngineFault
from runtime.gathering import Gathering


async def test_questions_of_one_tick_share_a_message_and_have_their_own_answers() -> None:
    messages: list[list[int]] = []

    async def send(asked: list[int]) -> list[int | Exception]:
        messages.append(asked)
        return [EngineFault("three") if one == 3 else one * 2 for one in asked]

    gathering: Gathering[int, int] = Gathering(send)
    told = await asyncio.gather(*map(gathering.ask, (1, 2, 3)), return_exceptions=True)
    assert told[:2] == [2, 4] and isinstance(told[2], EngineFault)
    assert await gathering.ask(4) == 8
    assert messages == [[1, 2, 3], [4]]


@pytest.mark.parametrize("fault", [ValueError("lost"), asyncio.CancelledError()])
async def test_whoever_waits_hears_of_a_message_that_is_lost(fault: BaseException) -> None:
    async def send(asked: list[int]) -> list[int | Exception]:
        raise fault

    gathering: Gathering[int, int] = Gathering(send)
    told = await asyncio.wait_for(
        asyncio.gather(*map(gathering.ask, (1, 2)), return_exceptions=True), timeout=5
    )
    wanted = ValueError if isinstance(fault, ValueError) else EngineFault
    assert [type(one) for one in told] == [wanted, wanted]


async def test_one_who_leaves_does_not_take_the_others_answer() -> None:
    ready = asyncio.Event()

    async def send(asked: list[int]) -> list[int | Exception]:
        await ready.wait()
        return list(asked)

    gathering: Gathering[int, int] = Gathering(send)
    stays, leaves = (asyncio.create_task(gathering.ask(n)) for n in (1, 2))
    await asyncio.sleep(0.01)
    leaves.cancel()
    ready.set()
    assert await stays == 1
