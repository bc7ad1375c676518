"""Members without a replica are left out where others go on, and waited for where none can."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from deployments.launch.in_process import LocalStack
from runtime.call_context import current_call_context
from runtime.calls.messages import Call, Outcome
from runtime.calls.remote_engine import RemoteEngine
from runtime.engines.base import EngineSpec
from runtime.errors import QuorumLost, ReplicaUnavailable
from tests.support.local_stack import animals, answers, ask, running

SWEET = {"type": "sweetspan", "span_words": 1}


class Away:
    """Takes a member's replicas away from its ensemble, until somebody waits for them."""

    def __init__(self, stack: LocalStack, member: str, calls: int = 0, back: bool = True) -> None:
        engine = stack.models["e"]._connections[member].engine
        assert isinstance(engine, RemoteEngine)
        self._channel: Any = engine._channel
        self._left, self._back = calls, back
        self.waited = 0
        self._describe, self._send = self._channel.describe, self._channel.send
        self._channel.describe, self._channel.send = self.describe, self.send

    def _meet(self, wait_for_replica: bool) -> None:
        self._left -= 1
        if self._left >= 0:
            return
        if not wait_for_replica or not self._back:
            raise ReplicaUnavailable("no running replica; loading")
        self.waited += 1
        self._left = 1_000_000  # a new one has come

    async def describe(self) -> EngineSpec:
        self._meet(current_call_context().wait_for_replica)
        return await self._describe()

    async def send(self, calls: Sequence[Call]) -> list[Outcome]:
        self._meet(calls[0].call_context.wait_for_replica)
        return await self._send(calls)


async def test_an_ensemble_goes_on_at_once_without_a_member_that_has_no_replica() -> None:
    async with running(animals(e=SWEET)) as stack:
        away = Away(stack, "dog", calls=3)
        answer = await ask(stack, "e")
    assert away.waited == 0
    assert answer.member("dog")["status"] == "dropped"
    assert answer.end.stop_reason == "eos"


@pytest.mark.parametrize("calls", [2, 3, 4])
async def test_the_only_member_is_waited_for(calls: int) -> None:
    alone = {"type": "single", "members": ["dog"], "chunk_tokens": 1}
    whole = await answers(animals(e=alone), "e")
    async with running(animals(e=alone)) as stack:
        away = Away(stack, "dog", calls=calls)
        answer = await ask(stack, "e")
    assert away.waited == 1
    assert answer.text == whole.text and not answer.summary["degraded"]


async def test_members_that_are_all_away_are_waited_for() -> None:
    whole = await answers(animals(e=SWEET), "e")
    async with running(animals(e=SWEET)) as stack:
        both = [Away(stack, name, calls=3) for name in ("cat", "dog")]
        answer = await ask(stack, "e")
    assert all(away.waited == 1 for away in both)
    assert answer.text == whole.text and not answer.summary["degraded"]


async def test_whoever_the_quorum_needs_is_waited_for() -> None:
    whole = await answers(animals(e=SWEET | {"quorum": 2}), "e")
    async with running(animals(e=SWEET | {"quorum": 2})) as stack:
        away = Away(stack, "dog", calls=3)
        answer = await ask(stack, "e")
    assert away.waited == 1 and answer.text == whole.text


async def test_a_quorum_that_does_not_come_back_is_lost() -> None:
    async with running(animals(e=SWEET)) as stack:
        for name in ("cat", "dog"):
            Away(stack, name, calls=3, back=False)
        with pytest.raises(QuorumLost, match="no running replica"):
            await ask(stack, "e")


@pytest.mark.parametrize("calls", [0, 1], ids=["unknown", "known"])
async def test_an_answer_that_has_not_begun_waits_for_nobody(calls: int) -> None:
    async with running(animals(e=SWEET)) as stack:
        both = [Away(stack, name, calls) for name in ("cat", "dog")]
        with pytest.raises(QuorumLost, match="no running replica; loading"):
            await ask(stack, "e")
    assert not any(away.waited for away in both)


async def test_who_waits_holds_up_nobody_else() -> None:
    """An answer that waits for a member must not make others wait that can do without it."""
    async with running(animals(e=SWEET)) as stack:
        away = Away(stack, "dog")
        whole = await ask(stack, "e", members=("cat",))
        on_its_way = replace(whole.written[0].checkpoint, dropped={}, spans=())
        never = asyncio.Event()

        async def describe() -> EngineSpec:
            if current_call_context().wait_for_replica:
                await never.wait()
            return await Away.describe(away)

        away._channel.describe = describe
        waiting = asyncio.create_task(ask(stack, "e", on_its_way, members=("dog",)))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            answer = await ask(stack, "e")
        assert answer.member("dog")["status"] == "dropped"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
