"""LE-MCTS through the whole stack, on table models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from policies.process import le_mcts
from policies.process.tree import Tree
from runtime.errors import ConfigError, MemberFailed
from runtime.types.events import Ended, Searched, Written
from runtime.types.query import Budget, Message, Query
from tests.support.local_stack import ask, running
from tests.support.models.maze import GOLD, JUDGE, STARTS_WELL, maze, table

QUESTION = (Message("user", "Which way?"),)


def tree_of(summary: Any) -> Tree:
    return Tree.load(summary["full"]["state"]["tree"])


async def test_members_find_together_what_none_finds_alone() -> None:
    async with running(maze(search={})) as stack:
        alone = [await ask(stack, name, messages=QUESTION) for name in ("a", "b")]
        answer = await ask(stack, "search", messages=QUESTION, trace="full")
    assert [reply.text for reply in alone] == ["up\nright\nAnswer: mud", "down\nleft\nAnswer: mud"]
    assert answer.text == GOLD
    assert answer.end.stop_reason == "eos" and answer.end.finish_reason == "stop"
    spans = answer.summary["spans"]
    assert [span["model"] for span in spans][:2] == ["a", "b"]
    assert [round(span["score"], 2) for span in spans] == [0.7, 0.8, 0.95]
    tree = tree_of(answer.summary)
    assert {step.text for step in tree} >= {"up\n", "down\n", "left\n", "Answer: gold"}
    calls = answer.summary["reward_model"]["calls"]
    assert calls == len(tree.nodes) - 1, "each new step is judged once"
    members = sum(answer.member(name)["calls"] for name in ("a", "b"))
    assert answer.summary["usage"]["model_calls"] == calls + members


@pytest.mark.parametrize("fields", ({"parallel": 4}, {"backpropagation": "standard"}, {"c": 2.0}))
async def test_other_ways_to_search_find_it_too(fields: dict[str, Any]) -> None:
    async with running(maze(search=fields)) as stack:
        assert (await ask(stack, "search", messages=QUESTION)).text == GOLD


async def test_the_same_seed_searches_alike_and_another_may_not() -> None:
    async with running(maze(search={"n_iter": 6})) as stack:

        async def searched(seed: int) -> list[dict[str, Any]]:
            answer = await ask(stack, "search", messages=QUESTION, trace="full", seed=seed)
            state: list[dict[str, Any]] = answer.summary["full"]["state"]["tree"]
            return state

        assert await searched(1) == await searched(1)
        assert len({str(await searched(seed)) for seed in range(8)}) > 1


async def test_a_limit_ends_the_search_with_the_best_there_is() -> None:
    async with running(maze(search={})) as stack:
        whole = await ask(stack, "search", messages=QUESTION, budget=Budget(calls=30))
        part = await ask(stack, "search", messages=QUESTION, budget=Budget(calls=4))
        nothing = await ask(stack, "search", messages=QUESTION, budget=Budget(calls=1))
    assert whole.text == GOLD and whole.end.stop_reason == "eos"
    assert part.text in ("up\n", "up\nleft\n") and part.end.stop_reason == "budget_calls"
    assert part.end.finish_reason == "length"
    assert any("best beginning" in warning for warning in part.summary["warnings"])
    assert nothing.text == "" and nothing.end.stop_reason == "budget_calls"


async def test_the_callers_token_limit_bounds_the_chain() -> None:
    async with running(maze(search={})) as stack:
        answer = await ask(stack, "search", messages=QUESTION, max_tokens=4)
    assert answer.text == "up\nleft\n" and answer.end.completion_tokens == 4
    assert answer.end.finish_reason == "length"


async def test_a_search_goes_on_elsewhere_from_what_it_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(le_mcts, "PROGRESS_S", 0.0)
    query = Query(id="q", model="search", messages=QUESTION, seed=5, trace="full")
    async with running(maze(search={})) as stack:
        events = [event async for event in stack.models["search"].answer(query)]
        searched = [event for event in events if isinstance(event, Searched)]
        written = [event for event in events if isinstance(event, Written)]
        assert len(searched) > 4 and [event.progress.done for event in searched] == list(
            range(1, len(searched) + 1)
        )
        assert searched[-1].progress.found["answers"] >= 1
        end = events[-1]
        assert isinstance(end, Ended)
        for event in (searched[1], searched[len(searched) // 2], searched[-1]):
            more = [e async for e in stack.models["search"].answer(query, event.checkpoint)]
            last = more[-1]
            assert isinstance(last, Ended)
            assert "".join(e.text for e in more if isinstance(e, Written)) == GOLD
            assert last.summary["full"]["state"]["tree"] == end.summary["full"]["state"]["tree"]
        # Amid the steps of the answer: the rest of it, and no search again.
        rest = [e async for e in stack.models["search"].answer(query, written[0].checkpoint)]
        text = "".join(event.text for event in rest if isinstance(event, Written))
        assert written[0].text + text == GOLD
        assert not any(isinstance(event, Searched) for event in rest)


async def test_a_member_that_fails_leaves_the_search_to_the_others() -> None:
    config = maze(search={})
    config["members"]["b"] = {
        "engine": {"type": "flaky", "engine": table(STARTS_WELL), "fails_from": 2},
        "retries": 0,
    }
    async with running(config) as stack:
        answer = await ask(stack, "search", messages=QUESTION)
    assert answer.summary["degraded"] and answer.member("b")["status"] == "dropped"
    assert answer.text.endswith("Answer: mud")


async def test_a_judge_that_fails_fails_the_request_with_its_reason() -> None:
    config = maze(search={})
    judge = {**JUDGE["judge"], "engine": {"type": "flaky", "engine": JUDGE["judge"]["engine"]}}
    judge["engine"]["fails_from"] = 2  # type: ignore[index]
    config["reward_models"]["prm"] = {"judge": judge, "retries": 1}
    async with running(config) as stack:
        with pytest.raises(MemberFailed, match="prm"):
            await ask(stack, "search", messages=QUESTION)


async def test_without_a_judge_the_members_own_likelihood_is_the_value() -> None:
    async with running(maze(search={"reward": "likelihood", "n_iter": 40})) as stack:
        answer = await ask(stack, "search", messages=QUESTION, trace="full")
    tree = tree_of(answer.summary)
    first = {step.text: step.reward for step in tree if step.depth == 1}
    # Each begins with 0.75 (times 1 for the newline) by its author, and 0.25 by the other.
    expected = ((0.75 + 1) / 2 + (0.25 + 1) / 2) / 2
    assert first["up\n"] == pytest.approx(expected, abs=2e-3)
    assert "reward_model" not in answer.summary
    assert answer.text.startswith(("up", "down")) and "Answer:" in answer.text


async def test_stop_strings_end_a_chain() -> None:
    async with running(maze(search={})) as stack:
        answer = await ask(stack, "search", messages=QUESTION, stop=("left",))
    assert answer.text == "up\n" and answer.end.stop_reason == "stop"


def test_a_reward_model_must_exist() -> None:
    from deployments.config.app_config import AppConfig

    with pytest.raises(ValueError, match="did you mean 'prm'"):
        AppConfig.model_validate(maze(search={"reward": "prn"}))


def test_a_judge_whose_signs_are_no_tokens_is_refused() -> None:
    from runtime.rewards import RewardModelConfig, build_reward_model

    wrong = {"judge": {**JUDGE["judge"], "tag": "lefty"}}
    with pytest.raises(ConfigError, match="tag 'lefty' is not one token"):
        build_reward_model(RewardModelConfig.model_validate(wrong))


@pytest.mark.parametrize("parallel", (1, 3))
async def test_a_caller_who_leaves_ends_the_search(
    monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    monkeypatch.setattr(le_mcts, "PROGRESS_S", 0.0)
    config = maze(search={"parallel": parallel})
    for member in config["members"].values():
        member["engine"] = {"type": "slow", "engine": member["engine"], "seconds": 0.02}
    async with running(config) as stack:
        before = asyncio.all_tasks()
        events = stack.models["search"].answer(Query(id="q", model="search", messages=QUESTION))
        assert isinstance(await anext(events), Searched)
        assert isinstance(events, AsyncGenerator)
        await events.aclose()
        assert not {task for task in asyncio.all_tasks() - before if "_expand" in repr(task)}


@pytest.mark.parametrize("where", ("member", "judge"))
async def test_full_windows_bound_a_search_and_fail_nothing(where: str) -> None:
    config = maze(search={}, ebs={"type": "ebs"}, boe={"type": "best-of-ensemble"})
    prompt = "Which way?"
    if where == "member":  # no room for the last line
        for member in config["members"].values():
            member["engine"] = {**member["engine"], "context_length": len(prompt) + 5}
    else:
        judge = JUDGE["judge"] | {"engine": {**JUDGE["judge"]["engine"], "context_length": 18}}
        config["reward_models"]["prm"] = {"judge": judge}
    async with running(config) as stack:
        for model in ("search", "ebs", "boe"):
            answer = await ask(stack, model, messages=(), prompt=prompt)
            assert "gold" not in answer.text and answer.end.stop_reason in ("length", "eos")


async def test_the_order_in_which_parallel_steps_arrive_changes_no_tree() -> None:
    async def tree(slow: str | None, seconds: float) -> list[dict[str, Any]]:
        config = maze(search={"parallel": 3, "n_iter": 12})
        if slow is not None:
            engine = config["members"][slow]["engine"]
            slowed = {"type": "slow", "engine": engine, "seconds": seconds}
            config["members"][slow]["engine"] = slowed
        async with running(config) as stack:
            answer = await ask(stack, "search", messages=QUESTION, trace="full", seed=4)
            nodes: list[dict[str, Any]] = answer.summary["full"]["state"]["tree"]
            return nodes

    expected = await tree(None, 0.0)
    assert len(expected) > 8
    for slow in ("a", "b"):
        assert await tree(slow, 0.01) == expected
