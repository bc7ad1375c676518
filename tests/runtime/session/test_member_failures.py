"""Members that fail, hang or come back: the answer goes on and the trace says what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from deployments.launch.in_process import LocalStack
from runtime.calls.remote_engine import RemoteEngine
from runtime.engines.base import EngineSpec
from runtime.errors import ContextOverflow, EngineFault, QuorumLost
from runtime.types.query import Budget, Message
from tests.support.local_stack import CAT, DOG, animals, answers, ask, running

SWEET = {"type": "sweetspan", "span_words": 1}


def with_engine(name: str, engine: dict[str, Any], **member: Any) -> dict[str, Any]:
    config = animals(e=SWEET)
    config["members"][name] = {"engine": engine, **member}
    return config


async def test_a_member_that_fails_once_is_retried_and_stays() -> None:
    whole = await answers(animals(e=SWEET), "e")
    flaky = {"type": "flaky", "engine": DOG, "fails_at": [2]}
    answer = await answers(with_engine("dog", flaky), "e")
    assert answer.text == whole.text
    assert answer.member("dog")["retries"] == 1
    assert not answer.summary["degraded"]


async def test_a_dead_member_is_dropped_and_the_answer_continues() -> None:
    flaky = {"type": "flaky", "engine": DOG, "fails_from": 3}
    answer = await answers(with_engine("dog", flaky), "e")
    assert answer.end.stop_reason == "eos"
    assert answer.text.endswith(".")
    assert answer.summary["degraded"]
    dog = answer.member("dog")
    assert (dog["status"], dog["dropped_at_step"]) == ("dropped", 1)
    assert "fail" in dog["error"] or dog["error"]
    assert answer.member("cat")["status"] == "ok"


async def test_a_member_that_never_answers_leaves_the_others_answer() -> None:
    alone = await answers(animals(), "cat")
    flaky = {"type": "flaky", "engine": DOG, "fails_from": 1}
    answer = await answers(with_engine("dog", flaky), "e")
    assert answer.text == alone.text
    assert answer.member("dog")["calls"] == 2


async def test_a_member_that_hangs_past_its_timeout_is_dropped() -> None:
    slow = {"type": "slow", "engine": DOG, "seconds": 30, "slow_from": 2}
    answer = await answers(with_engine("dog", slow, timeout_s=0.05), "e")
    assert answer.member("dog")["status"] == "dropped"
    assert "0.05 s" in answer.member("dog")["error"]
    assert answer.end.stop_reason == "eos"


async def test_losing_the_quorum_is_an_error_that_names_every_members_state() -> None:
    flaky = {"type": "flaky", "engine": DOG, "fails_from": 1}
    config = with_engine("dog", flaky)
    config["ensembles"]["e"]["quorum"] = 2
    with pytest.raises(QuorumLost) as lost:
        await answers(config, "e")
    assert lost.value.states["cat"] == "ok"
    assert lost.value.states["dog"] != "ok"


async def test_a_standby_takes_over_when_a_single_writer_dies() -> None:
    config = animals(e={"type": "single", "members": ["dog", "cat"], "chunk_tokens": 2})
    config["members"]["dog"] = {"engine": {"type": "flaky", "engine": DOG, "fails_from": 2}}
    answer = await answers(config, "e")
    assert answer.text.startswith(" the")
    assert answer.end.stop_reason == "eos"
    assert [span["model"] for span in answer.summary["spans"]][0] == "dog"
    assert [span["model"] for span in answer.summary["spans"]][-1] == "cat"


def describing(stack: LocalStack, member: str, describe: Callable[[], Awaitable[Any]]) -> None:
    """Has one member's end of the ensemble's channel answer ``describe`` like this."""
    engine = stack.models["e"]._connections[member].engine
    assert isinstance(engine, RemoteEngine)
    engine._channel.describe = describe  # type: ignore[method-assign]


async def test_a_member_that_is_late_to_come_up_is_called_again() -> None:
    async with running(animals(e=SWEET)) as stack:
        whole = await ask(stack, "e")
    async with running(animals(e=SWEET)) as stack:
        known, calls = stack.engines["dog"].spec, []

        async def describe() -> EngineSpec:
            calls.append(1)
            if len(calls) == 1:
                raise EngineFault("still loading")
            return known

        describing(stack, "dog", describe)
        answer = await ask(stack, "e")
    assert len(calls) == 2
    assert answer.text == whole.text
    assert not answer.summary["degraded"]


async def test_a_member_that_never_comes_up_is_dropped_before_the_answer() -> None:
    async with running(animals(e=SWEET)) as stack:

        async def describe() -> EngineSpec:
            raise EngineFault("no such replica")

        describing(stack, "dog", describe)
        answer = await ask(stack, "e")
        card = await stack.models["e"].card()
    assert answer.text == " the cat sat."
    assert answer.member("dog")["error"] == "no such replica"
    assert card["members"] == ["cat", "dog"]  # the ensemble can be used while one is away


async def test_an_answer_goes_on_elsewhere_though_its_counting_member_is_gone() -> None:
    flaky = {"type": "flaky", "engine": CAT, "fails_from": 3}
    async with running(with_engine("cat", flaky)) as stack:
        whole = await ask(stack, "e")
    past = next(w.checkpoint for w in whole.written if "cat" in w.checkpoint.dropped)
    assert past.reporter == "cat"
    spans = tuple(w.span for w in whole.written if w.span)[: past.step]
    async with running(with_engine("cat", flaky)) as stack:

        async def describe() -> EngineSpec:
            raise EngineFault("no such replica")

        describing(stack, "cat", describe)
        resumed = await ask(stack, "e", replace(past, spans=spans))
    assert past.text + resumed.text == whole.text
    assert resumed.end.stop_reason == whole.end.stop_reason


async def test_a_member_that_hangs_before_the_answer_does_not_outlast_the_deadline() -> None:
    async with running(animals(e=SWEET)) as stack:
        describing(stack, "dog", asyncio.Event().wait)
        answer = await ask(stack, "e", budget=Budget(seconds=0.1))
    assert (answer.text, answer.end.stop_reason) == ("", "budget_time")


async def test_a_member_without_room_is_reported_by_name() -> None:
    config = with_engine("dog", DOG | {"context_length": 16})
    with pytest.raises(ContextOverflow, match="dog"):
        await answers(config, "e", messages=(Message("user", "far too long a question"),))


async def test_an_answer_that_fills_a_window_ends_with_what_there_is() -> None:
    loop = {
        "type": "table",
        "vocabulary": [" ah"],
        "table": {"": {" ah": 1}},
        "context_length": 40,
    }
    config = {
        "members": {"one": {"engine": loop}, "two": {"engine": CAT}},
        "ensembles": {"e": {"type": "sweetspan", "members": ["one"]}},
    }
    answer = await answers(config, "e")
    assert (answer.end.finish_reason, answer.end.stop_reason) == ("length", "context")
    assert set(answer.text.split()) == {"ah"}
