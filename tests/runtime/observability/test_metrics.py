"""What is counted while answers are written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runtime.errors import QuorumLost
from runtime.observability.metrics import (
    ANSWER_SECONDS,
    ANSWERS,
    ANSWERS_IN_PROGRESS,
    CACHED_TOKENS,
    CALL_SECONDS,
    CALLS,
    CALLS_IN_PROGRESS,
    COMPLETION_TOKENS,
    COST,
    DROPS,
    FIRST_SPAN_SECONDS,
    MESSAGES_IN_PROGRESS,
    METRICS,
    PROMPT_TOKENS,
    RETRIES,
    ROUNDS,
    VISIBLE_TOKENS,
    Counts,
    Metric,
)
from runtime.observability.recorder import LoadRecorder
from runtime.types.events import Written
from runtime.types.query import Message, Query
from tests.support.local_stack import DOG, animals, ask, running
from tests.support.paths import ROOT

PAGE = ROOT / "docs/metrics.md"
SWEET = {"type": "sweetspan", "span_words": 1}
OF_MEMBERS = {
    CALLS: "calls",
    RETRIES: "retries",
    PROMPT_TOKENS: "prompt_tokens",
    CACHED_TOKENS: "cached_tokens",
    COMPLETION_TOKENS: "completion_tokens",
    COST: "cost",
}
WHO = Query(id="t", model="e", messages=(Message("user", "Who?"),))


def flaky(**faults: Any) -> dict[str, Any]:
    config = animals(e=SWEET)
    config["members"]["dog"] = {"engine": {"type": "flaky", "engine": DOG, **faults}}
    return config


async def test_the_metrics_of_an_answer_are_those_of_its_summary() -> None:
    config = animals(e=SWEET)
    config["members"]["cat"]["price"] = {"input": 3.0, "output": 5.0}
    async with running(config) as stack:
        answer = await ask(stack, "e")
        counts = stack.counts
    assert counts.value(ANSWERS, "e", "eos") == 1
    assert counts.value(ANSWERS_IN_PROGRESS, "e") == 0
    assert counts.value(VISIBLE_TOKENS, "e") == answer.end.completion_tokens
    assert counts.observed(FIRST_SPAN_SECONDS, "e") == counts.observed(ANSWER_SECONDS, "e") == 1
    assert counts.value(FIRST_SPAN_SECONDS, "e") < counts.value(ANSWER_SECONDS, "e")
    for name in ("cat", "dog"):
        member = answer.member(name)
        assert counts.value(ROUNDS, "e", name) == member["spans"]
        for metric, key in OF_MEMBERS.items():
            assert counts.value(metric, "e", name) == pytest.approx(member[key])
        assert counts.observed(CALL_SECONDS, "e", name) == member["calls"]
        assert counts.value(DROPS, "e", name) == 0
    assert counts.value(COST, "e", "cat") > 0


async def test_a_member_alone_is_an_ensemble_of_its_own_name() -> None:
    async with running(animals(e=SWEET)) as stack:
        await ask(stack, "dog")
        assert stack.counts.value(ANSWERS, "dog", "eos") == 1
        assert stack.counts.value(CALLS, "dog", "dog") > 0
        assert stack.counts.value(CALLS, "e", "dog") == 0


async def test_a_dropped_member_counts_one_drop_and_its_retry() -> None:
    async with running(flaky(fails_from=3)) as stack:
        await ask(stack, "e")
        assert stack.counts.value(DROPS, "e", "dog") == 1
        assert stack.counts.value(RETRIES, "e", "dog") == 1
        assert stack.counts.value(DROPS, "e", "cat") == 0
        assert stack.counts.value(ANSWERS, "e", "eos") == 1


async def test_an_answer_that_failed_counts_under_its_error_and_leaves_no_latency() -> None:
    config = flaky(fails_from=3)
    config["ensembles"]["e"]["quorum"] = 2
    async with running(config) as stack:
        with pytest.raises(QuorumLost):
            await ask(stack, "e")
        assert stack.counts.value(ANSWERS, "e", "QuorumLost") == 1
        assert stack.counts.value(ANSWERS_IN_PROGRESS, "e") == 0
        assert stack.counts.observed(FIRST_SPAN_SECONDS, "e") == 1
        assert stack.counts.observed(ANSWER_SECONDS, "e") == 0


async def test_an_answer_is_in_progress_until_its_client_leaves() -> None:
    async with running(animals(e=SWEET)) as stack:
        events = stack.models["e"].answer(WHO)
        await anext(events)
        assert stack.counts.value(ANSWERS_IN_PROGRESS, "e") == 1
        await events.aclose()
        assert stack.counts.value(ANSWERS_IN_PROGRESS, "e") == 0
        assert stack.counts.value(ANSWERS, "e", "cancelled") == 1


async def test_an_answer_that_another_coordinator_goes_on_with_counts_its_past_once() -> None:
    async with running(animals(e=SWEET)) as stack:
        events = stack.models["e"].answer(WHO)
        first = await anext(events)
        await events.aclose()
        assert isinstance(first, Written) and first.span is not None
        past = replace(first.checkpoint, spans=(first.span,))
        calls = stack.counts.value(CALLS, "e", "cat")
    async with running(animals(e=SWEET)) as other:
        answer = await ask(other, "e", past)
        counts = other.counts
    assert counts.value(CALLS, "e", "cat") == answer.member("cat")["calls"] - calls
    assert counts.value(VISIBLE_TOKENS, "e") == answer.end.completion_tokens
    assert counts.observed(FIRST_SPAN_SECONDS, "e") == 0
    spans = sum(answer.member(name)["spans"] for name in ("cat", "dog"))
    assert counts.value(ROUNDS, "e", "cat") + counts.value(ROUNDS, "e", "dog") == spans - 1


def test_a_replica_knows_its_messages_and_calls_also_when_one_fails() -> None:
    counts = Counts()
    load = LoadRecorder("dog", counts)

    def levels() -> tuple[float, float]:
        return counts.value(MESSAGES_IN_PROGRESS, "dog"), counts.value(CALLS_IN_PROGRESS, "dog")

    with pytest.raises(RuntimeError), load.message(5):
        with load.message(2):
            assert levels() == (2, 7)
        assert levels() == (1, 5)
        raise RuntimeError
    assert levels() == (0, 0)


def row(metric: Metric) -> str:
    tags = ", ".join(f"`{tag}`" for tag in metric.tags)
    return f"| `{metric.name}` | {metric.kind} | {tags} | {metric.meaning} |"


def test_the_page_lists_every_metric_as_it_is_defined() -> None:
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| `orchestrion_")]
    assert listed == [row(metric) for metric in METRICS]
