"""Best of N, best of ensemble and the beam searches, on the maze; their arithmetic by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from policies.process.base import Line
from policies.process.beam_search import Beam
from policies.process.cbs import apportion, next_quotas
from runtime.types.events import Ended, Searched, Written
from runtime.types.query import Budget, Message, Query
from tests.support.local_stack import ask, running
from tests.support.models.maze import GOLD, maze

QUESTION = (Message("user", "Which way?"),)
BASELINES: dict[str, dict[str, Any]] = {
    "n": {"type": "best-of-n", "members": ["a"], "n": 12, "temperature": 1.0},
    "boe": {"type": "best-of-ensemble", "n": 8, "temperature": 1.0},
    "ebs": {"type": "ebs", "beams": 2},
    "cbs": {"type": "cbs", "beams": 2, "samples": 6},
}


def world(**more: dict[str, Any]) -> dict[str, Any]:
    config = maze(**BASELINES, **more)
    config["ensembles"]["cbs"].pop("reward")
    return config


@pytest.mark.parametrize("name", ("n", "boe", "ebs"))
async def test_the_judge_finds_gold_among_what_members_write(name: str) -> None:
    async with running(world()) as stack:
        answer = await ask(stack, name, messages=QUESTION, seed=3)
    assert answer.text == GOLD and answer.end.stop_reason == "eos"
    if name == "ebs":
        assert [span["model"] for span in answer.summary["spans"]][:2] == ["a", "b"]
        assert answer.summary["spans"][1]["score"] == pytest.approx(0.8, abs=1e-3)


async def test_greedy_best_of_n_is_the_member_itself() -> None:
    config = world(one={"type": "best-of-n", "members": ["a"], "n": 3, "temperature": 0})
    async with running(config) as stack:
        answer = await ask(stack, "one", messages=QUESTION)
        alone = await ask(stack, "a", messages=QUESTION)
    assert answer.text == alone.text == "up\nright\nAnswer: mud"


async def test_collaborative_beams_go_by_what_all_members_find_likely() -> None:
    async with running(world()) as stack:
        answer = await ask(stack, "cbs", messages=QUESTION, trace="full")
    # After "down" a goes right and b left for sure; after "up" both can think of either.
    assert answer.text.startswith("up\n") and answer.text.endswith(("gold", "mud"))
    state = answer.summary["full"]["state"]
    assert sum(state["quotas"].values()) == 6
    first = answer.summary["spans"][0]["score"]
    # -PPL of "up\n": sqrt(1 / 0.75) by a, sqrt(1 / 0.25) by b.
    assert first == pytest.approx(-((1 / 0.75) ** 0.5 + (1 / 0.25) ** 0.5) / 2, abs=2e-3)


@pytest.mark.parametrize("name", ("boe", "ebs", "cbs"))
async def test_the_same_seed_gives_the_same_answer(name: str) -> None:
    async with running(world()) as stack:
        texts = {(await ask(stack, name, messages=QUESTION, seed=9)).text for _ in range(3)}
    assert len(texts) == 1


@pytest.mark.parametrize("name", ("boe", "ebs", "cbs"))
async def test_a_limit_leaves_the_best_there_is(name: str) -> None:
    async with running(world()) as stack:
        answer = await ask(stack, name, messages=QUESTION, budget=Budget(calls=9))
    assert answer.end.stop_reason in ("eos", "budget_calls")
    assert any("ended by its limit" in warning for warning in answer.summary["warnings"])


@pytest.mark.parametrize("name", ("ebs", "cbs"))
async def test_a_beam_search_goes_on_elsewhere(name: str) -> None:
    query = Query(id="q", model=name, messages=QUESTION, seed=5)
    async with running(world()) as stack:
        events = [event async for event in stack.models[name].answer(query)]
        whole = "".join(event.text for event in events if isinstance(event, Written))
        searched = [event for event in events if isinstance(event, Searched)]
        assert len(searched) == 3
        for event in searched:
            more = [e async for e in stack.models[name].answer(query, event.checkpoint)]
            assert "".join(e.text for e in more if isinstance(e, Written)) == whole
            assert isinstance(more[-1], Ended)


def test_quotas_by_hand() -> None:
    assert apportion({"a": 1, "b": 1, "c": 1}, 8) == {"a": 3, "b": 3, "c": 2}
    assert apportion({"a": 2.6, "b": 1.4}, 4) == {"a": 3, "b": 1}
    assert next_quotas({"a": 2, "b": 2}, 0.1, 8) == {"a": 4, "b": 4}
    assert next_quotas({"a": 3, "b": 1}, 0.1, 8) == {"a": 8, "b": 0}
    # exp(0) to exp(-1): 0.731 and 0.269 of 8 are 5.85 and 2.15.
    assert next_quotas({"a": 2, "b": 1}, 1.0, 8) == {"a": 6, "b": 2}


def test_a_beam_survives_json() -> None:
    beam = Beam((Line("up\n", "a", 0.7, False),), 0.7, finished=True)
    assert Beam.load(json.loads(json.dumps(beam.dump()))) == beam


def test_best_of_n_is_of_one_member() -> None:
    with pytest.raises(ValueError, match="best-of-ensemble"):
        AppConfig.model_validate(maze(n={"type": "best-of-n"}))
