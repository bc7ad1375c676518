"""DER with agents made by hand: failing members, spent budgets, unsuitable agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import BadRequest, ConfigError, QuorumLost
from runtime.types.query import Budget, Message
from tests.support.local_stack import ask, running
from tests.support.models.agents import ECHO, PROMPT, agent, by_calls, config

A, B, STOP = 0, 1, 2


async def test_a_member_that_fails_spends_a_call_and_is_not_called_again(tmp_path: Path) -> None:
    agent(by_calls(B, B, STOP)).save(tmp_path)
    broken = config(tmp_path, der={})
    broken["members"]["b"] = {
        "engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": 1},
        "retries": 0,
    }
    async with running(broken) as stack:
        answer = await ask(stack, "der", messages=(Message("user", "hi"),), trace="full")
    assert answer.text == "hi" and answer.summary["route"] == ["b", "a"]
    assert answer.member("b")["status"] == "dropped" and answer.summary["degraded"]


@pytest.mark.parametrize("fails_from", [1, 2])
async def test_a_writer_that_fails_is_followed_by_another(tmp_path: Path, fails_from: int) -> None:
    agent(by_calls(B), t_max=1).save(tmp_path)
    broken = config(tmp_path, der={"chunk_tokens": 4})
    broken["members"]["b"] = {
        "engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": fails_from},
        "retries": 0,
    }
    text = "one two three four five six seven"
    async with running(broken) as stack:
        answer = await ask(stack, "der", messages=(Message("user", text),))
    assert answer.text == text
    assert answer.member("a")["share"] > 0 and (answer.member("b")["share"] > 0) == (
        fails_from == 2
    )


async def test_when_all_members_fail_the_request_fails(tmp_path: Path) -> None:
    agent(by_calls(B, A)).save(tmp_path)
    broken = config(tmp_path, der={"encoder": "reader"})
    broken["members"] = dict.fromkeys(
        ("a", "b"),
        {"engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": 1}, "retries": 0},
    )
    broken["members"]["reader"] = ECHO
    broken["ensembles"]["der"]["members"] = ["a", "b", "reader"]
    agent(by_calls(B, A), encoder="reader").save(tmp_path)
    async with running(broken) as stack:
        with pytest.raises(QuorumLost):
            await ask(stack, "der", messages=(Message("user", "hi"),), members=("a", "b"))


async def test_a_spent_budget_ends_the_route_with_the_last_answer(tmp_path: Path) -> None:
    agent(by_calls(A, B, A, B, A)).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        answer = await ask(stack, "der", messages=(Message("user", "hi"),), budget=Budget(calls=3))
    # to read, to ask, to read again: nothing is left for a second call
    assert answer.text == "hi" and answer.end.stop_reason == "budget_calls"
    assert answer.end.finish_reason == "length"


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (agent(by_calls(A, STOP), members=("a", "c")), "'c'"),
        (agent(by_calls(A, STOP), encoder="b"), "encoder 'b'"),
        (agent(by_calls(A, STOP), prompts={"a": PROMPT, "b": "{previous}{question}"}), "prompts"),
        (None, "orchestrion train der"),
    ],
)
async def test_an_agent_for_other_conditions_is_refused(
    tmp_path: Path, made: Any, named: str
) -> None:
    if made is not None:
        made.save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        with pytest.raises(ConfigError, match=named):
            await ask(stack, "der", messages=(Message("user", "hi"),))


async def test_an_agent_for_another_encoder_is_refused(tmp_path: Path) -> None:
    layers = ((np.zeros((3, 5), dtype=np.float32), np.zeros(3, dtype=np.float32)),)
    agent(layers).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        with pytest.raises(ConfigError, match="trained on 4"):
            await ask(stack, "der", messages=(Message("user", "hi"),))


async def test_a_member_whose_window_is_too_small_is_passed_over(tmp_path: Path) -> None:
    agent(by_calls(A, B, STOP)).save(tmp_path)
    small = config(tmp_path, der={})
    text = " ".join(["word"] * 20)
    async with running(small) as stack:
        answer = await ask(stack, "a", messages=(Message("user", text),))
    room = answer.end.prompt_tokens + answer.end.completion_tokens // 2
    small["members"]["b"] = {"engine": {"type": "echo", "context_length": room}}
    async with running(small) as stack:
        answer = await ask(stack, "der", messages=(Message("user", text),))
    assert answer.summary["route"] == ["a", "a"] and answer.text == f"{text} / {text}"
    assert "b cannot hold the last answer" in answer.summary["warnings"][0]


async def test_an_encoder_that_fails_later_does_not_lose_the_answer(tmp_path: Path) -> None:
    agent(by_calls(B, A, STOP), encoder="a").save(tmp_path)
    broken = config(tmp_path, der={})
    # The first call reads the question, the second one would read the answer.
    broken["members"]["a"] = {
        "engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": 2},
        "retries": 0,
    }
    async with running(broken) as stack:
        answer = await ask(stack, "der", messages=(Message("user", "hi"),))
    assert answer.text == "hi" and answer.end.stop_reason == "eos"
    assert "the route ended early" in answer.summary["warnings"][0]


async def test_a_budget_that_ends_a_stream_reports_the_route(tmp_path: Path) -> None:
    agent(by_calls(B, t_max=1), t_max=1).save(tmp_path)
    async with running(config(tmp_path, der={"chunk_tokens": 4})) as stack:
        answer = await ask(
            stack,
            "der",
            messages=(Message("user", " ".join(["word"] * 30)),),
            budget=Budget(calls=3),
        )
    assert answer.end.stop_reason == "budget_calls" and answer.text
    assert answer.summary["route"] == ["b"]


async def test_an_export_for_other_conditions_does_not_replace_one_that_serves(
    tmp_path: Path,
) -> None:
    agent(by_calls(A, STOP)).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        first = await ask(stack, "der", messages=(Message("user", "hi"),))
        agent(by_calls(B, STOP), encoder="b").save(tmp_path)
        second = await ask(stack, "der", messages=(Message("user", "hi"),))
    assert first.summary["agent"] == second.summary["agent"]


async def test_an_agent_that_never_learnt_to_stop_needs_its_terminator(tmp_path: Path) -> None:
    agent(by_calls(A, STOP), stops=False).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        with pytest.raises(ConfigError, match="without a stop action"):
            await ask(stack, "der", messages=(Message("user", "hi"),))


async def test_the_member_that_continues_a_text_can_hold_it(tmp_path: Path) -> None:
    text = " ".join(["word"] * 20)
    setting = config(tmp_path, der={"chunk_tokens": 4})
    setting["members"]["c"] = ECHO
    setting["ensembles"]["der"] |= {"members": ["a", "b", "c"], "encoder": "c"}
    layers = by_calls(B, 3, t_max=1)
    agent(layers, members=("a", "b", "c"), t_max=1, encoder="c").save(tmp_path)
    async with running(setting) as stack:
        alone = await ask(stack, "a", messages=(Message("user", text),))
    room = alone.end.prompt_tokens + 4
    setting["members"]["a"] = {"engine": {"type": "echo", "context_length": room}}
    setting["members"]["b"] = {
        "engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": 3},
        "retries": 0,
    }
    async with running(setting) as stack:
        answer = await ask(stack, "der", messages=(Message("user", text),))
    assert answer.text == text and answer.member("c")["share"] > 0


async def test_a_chat_without_a_question_is_refused(tmp_path: Path) -> None:
    agent(by_calls(A, STOP)).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        with pytest.raises(BadRequest, match="turn of the user"):
            await ask(stack, "der", messages=(Message("system", "be brief"),))
