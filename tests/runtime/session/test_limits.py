"""Budgets, stop strings and token limits: what ends an answer, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runtime.types.query import Budget
from tests.support.local_stack import animals, answers, ask, running

SWEET = {"type": "sweetspan", "span_words": 1}


async def test_the_call_budget_ends_the_answer_with_what_there_is() -> None:
    whole = await answers(animals(e=SWEET), "e")
    answer = await answers(animals(e=SWEET), "e", budget=Budget(calls=5))
    assert (answer.end.finish_reason, answer.end.stop_reason) == ("length", "budget_calls")
    assert whole.text.startswith(answer.text)
    assert 0 < len(answer.text) < len(whole.text)
    assert answer.summary["usage"]["model_calls"] <= 6  # the last round's calls leave together


async def test_the_token_budget_ends_the_answer() -> None:
    answer = await answers(animals(e=SWEET), "e", budget=Budget(tokens=120))
    assert answer.end.stop_reason == "budget_tokens"


async def test_the_cost_budget_counts_configured_prices() -> None:
    config = animals(e=SWEET)
    for member in config["members"].values():
        member["price"] = {"input": 1.0, "output": 2.0}
    whole = await answers(config, "e")
    usage = whole.summary["usage"]
    expected = (usage["prompt_tokens"] + 2 * usage["completion_tokens"]) / 1e6
    assert whole.summary["cost"]["amount"] == pytest.approx(expected)
    answer = await answers(config, "e", budget=Budget(cost=expected / 2))
    assert answer.end.stop_reason == "budget_cost"
    assert whole.text.startswith(answer.text)


async def test_the_deadline_returns_the_answer_so_far() -> None:
    config = animals(e=SWEET)
    slow = {"type": "slow", "engine": config["members"]["dog"]["engine"], "seconds": 30}
    config["members"]["dog"] = {"engine": slow | {"slow_from": 3}}
    answer = await answers(config, "e", budget=Budget(seconds=0.3))
    assert answer.end.stop_reason == "budget_time"
    assert answer.text.startswith(" the")


async def test_a_request_can_only_narrow_its_ensembles_budget() -> None:
    config = animals(e=SWEET | {"budget": {"calls": 3}})
    answer = await answers(config, "e", budget=Budget(calls=1000))
    assert answer.end.stop_reason == "budget_calls"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ((" ran",), " the dog"),
        (("g r",), " the do"),
        (("e d", "dog"), " th"),
        (("!",), " the dog ran."),
    ],
)
async def test_stop_strings_are_found_across_span_borders(stop: tuple[str, ...], text: str) -> None:
    answer = await answers(animals(e=SWEET | {"members": ["dog", "cat"]}), "e", stop=stop)
    assert answer.text == text
    assert answer.end.stop_reason == ("eos" if "!" in stop else "stop")
    assert answer.end.finish_reason == "stop"


async def test_text_that_may_become_a_stop_string_is_shown_late_not_lost() -> None:
    answer = await answers(animals(e=SWEET), "e", stop=("dog ran fast",))
    assert answer.text == " the dog ran."
    assert "".join(w.text for w in answer.written[:2]) == " the "


@pytest.mark.parametrize("method", ["sweetspan", "specfuse", "cool-fusion"])
async def test_a_members_own_stop_text_ends_the_answer_like_its_eos(method: str) -> None:
    config = animals(e={"type": method, "members": ["cat"]})
    config["members"]["cat"]["stop"] = [" sat"]
    answer = await answers(config, "e", temperature=0.0)
    assert (answer.text, answer.end.stop_reason) == (" the cat", "eos")
    assert (await answers(config, "dog")).text == " the dog ran."


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_the_token_limit_counts_the_reporting_members_tokens(limit: int) -> None:
    config = animals(e=SWEET | {"reporting_member": "dog"})
    answer = await answers(config, "e", max_tokens=limit)
    pieces = [" t", "he", " do", "g", " ra", "n", "."]
    assert answer.text == "".join(pieces[:limit])
    assert answer.end.completion_tokens == limit
    assert answer.end.finish_reason == "length"


@pytest.mark.parametrize(
    "ensemble",
    [
        SWEET,
        {"type": "specfuse", "segment_tokens": 2},
        {"type": "specem", "segment_tokens": 2},
        {"type": "cool-fusion"},
        {"type": "cool-fusion", "rerank": True, "aligned": False},
        {"type": "single", "members": ["dog"], "chunk_tokens": 1, "temperature": 1.0},
    ],
    ids=["sweetspan", "specfuse", "specem", "cool-fusion", "cool+r", "single"],
)
async def test_an_answer_goes_on_from_any_checkpoint_as_if_undisturbed(
    ensemble: dict[str, Any],
) -> None:
    async with running(animals(e=ensemble)) as stack:
        whole = await ask(stack, "e", seed=5)
        assert len(whole.written) > 1
        spans = ()
        for written in whole.written:  # the last one too: then only the end is left to tell
            assert written.span is not None
            spans = (*spans, written.span)
            resumed = await ask(stack, "e", replace(written.checkpoint, spans=spans), seed=5)
            assert written.checkpoint.text + resumed.text == whole.text
            assert resumed.end.stop_reason == whole.end.stop_reason
            assert resumed.end.completion_tokens == whole.end.completion_tokens
            assert resumed.summary["spans"] == whole.summary["spans"]


async def test_an_answer_cut_by_its_budget_is_not_reported_twice() -> None:
    budget = Budget(calls=5)
    async with running(animals(e=SWEET)) as stack:
        whole = await ask(stack, "e", stop=("dog ran fast",), budget=budget)
        assert whole.written[-1].span is None  # what was held back as a possible stop string
        assert whole.written[-1].text
        resumed = await ask(
            stack, "e", whole.written[-1].checkpoint, stop=("dog ran fast",), budget=budget
        )
    assert resumed.text == ""
    assert resumed.end.stop_reason == "budget_calls"


async def test_reranking_that_the_budget_forbids_keeps_the_fused_text() -> None:
    method = {"type": "cool-fusion", "rerank": True}
    fused = await answers(animals(e={"type": "cool-fusion"}), "e")
    whole = await answers(animals(e=method), "e")
    calls = whole.summary["usage"]["model_calls"]
    answer = await answers(animals(e=method), "e", budget=Budget(calls=calls - 2))
    assert answer.end.stop_reason == "budget_calls"
    assert answer.text == fused.text
    assert answer.end.completion_tokens == fused.end.completion_tokens


@pytest.mark.parametrize("size", [1, 2, 8])
async def test_a_members_stop_text_is_found_wherever_a_call_ends(size: int) -> None:
    config = animals(e={"type": "single", "members": ["dog"], "chunk_tokens": size})
    config["members"]["dog"]["stop"] = ["g r"]
    answer = await answers(config, "e")
    assert (answer.text, answer.end.stop_reason) == (" the do", "eos")


async def test_ignoring_the_end_ignores_members_own_stop_texts() -> None:
    config = animals()
    config["members"]["cat"]["stop"] = [" sat"]
    answer = await answers(config, "cat", ignore_eos=True, max_tokens=3)
    assert answer.text == " the cat sat"
    assert answer.end.stop_reason == "length"
