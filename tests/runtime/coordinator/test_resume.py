"""Answers that break off anywhere go on where they were sent, on this coordinator or another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from deployments.launch.in_process import LocalStack
from runtime.types.events import Checkpoint, Ended, Event, Recalled, Written
from runtime.types.query import Budget, Message, Query
from runtime.types.spans import Span
from tests.support.local_stack import DOG, animals, running
from tests.support.models.maze import maze

LONG: dict[str, Any] = {"max_tokens": 14, "ignore_eos": True}
WORLDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "span": (animals(m={"type": "sweetspan", "span_words": 1}), LONG),
    "fused segments": (animals(m={"type": "specfuse", "segment_tokens": 2}), LONG),
    "token": (animals(m={"type": "gac"}), {**LONG, "temperature": 1.0}),
    "process": (maze(m={}), {}),
    "alone": (animals(m={"type": "single", "members": ["dog"], "chunk_tokens": 1}), LONG),
    "held back": (
        animals(m={"type": "sweetspan", "span_words": 1}),
        {"stop": ("dog ran fast", " cat sat on"), "max_tokens": 14},
    ),
}


def question(**fields: Any) -> Query:
    return Query(id="t", model="m", messages=(Message("user", "Who?"),), seed=5, **fields)


async def events_of(
    stack: LocalStack, query: Query, checkpoint: Checkpoint | None = None, most: int | None = None
) -> list[Event]:
    """The first ``most`` events; then whoever listens is gone."""
    events: list[Event] = []
    async with aclosing(stack.models["m"].answer(query, checkpoint)) as answer:
        async for event in answer:
            events.append(event)
            if len(events) == most:
                break
    return events


def text(events: Sequence[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, Written | Recalled))


def handed_over(events: Sequence[Event]) -> Checkpoint | None:
    """What the gateway has when a coordinator is lost after these."""
    spans: list[Span] = []
    checkpoint = None
    for event in events:
        if isinstance(event, Ended):
            continue
        if isinstance(event, Recalled):
            spans = list(event.checkpoint.spans)
        if isinstance(event, Written) and event.span is not None:
            spans.append(event.span)
        checkpoint = replace(event.checkpoint, spans=tuple(spans))
    return checkpoint


@pytest.mark.parametrize("world", WORLDS)
async def test_an_answer_that_broke_off_goes_on_for_who_comes_back(world: str) -> None:
    config, fields = WORLDS[world]
    async with running(config) as stack:
        whole = await events_of(stack, question(**fields))
    assert isinstance(whole[-1], Ended)
    for most in range(1, len(whole)):
        async with running(config) as stack:
            before = await events_of(stack, question(**fields), most=most)
            after = await events_of(stack, question(**fields, again=True))
        assert isinstance(after[0], Recalled)
        assert after[0].text == text(before), "all that was sent, and no more"
        assert text(after) == text(whole)
        end = after[-1]
        assert isinstance(end, Ended) and end.stop_reason == whole[-1].stop_reason
        assert end.completion_tokens == whole[-1].completion_tokens


@pytest.mark.parametrize("world", WORLDS)
async def test_a_coordinator_that_is_lost_after_a_recall_loses_no_text(world: str) -> None:
    config, fields = WORLDS[world]
    async with running(config) as stack:
        whole = await events_of(stack, question(**fields))
    for most in range(1, len(whole)):
        async with running(config) as stack:
            await events_of(stack, question(**fields), most=most)
            begun = await events_of(stack, question(**fields, again=True), most=2)
        if isinstance(begun[-1], Ended):
            continue
        async with running(config) as other:
            rest = await events_of(other, question(**fields), handed_over(begun))
        assert text(begun) + text(rest) == text(whole)


async def test_who_comes_back_before_a_new_coordinator_wrote_anything_finds_the_text() -> None:
    config, fields = WORLDS["span"]
    async with running(config) as stack:
        before = (await events_of(stack, question(**fields)))[:3]
    async with running(config) as other:
        stays: Any = other.models["m"].answer(question(**fields), handed_over(before))
        begun = asyncio.ensure_future(anext(stays))
        await asyncio.sleep(0)
        begun.cancel()
        await asyncio.wait([begun])
        await stays.aclose()
        after = await events_of(other, question(**fields, again=True), most=1)
    assert isinstance(after[0], Recalled) and after[0].text == text(before)


async def test_what_was_held_back_for_a_member_that_is_lost_is_reported_once() -> None:
    """Where the answer goes on, nobody learns that member's stops from it."""
    for fails_from in range(2, 8):
        world = animals(m={"type": "sweetspan", "span_words": 1})
        engine = {"type": "flaky", "engine": DOG, "fails_from": fails_from}
        world["members"]["dog"] = {"engine": engine, "stop": [" cat XX", " sat XX", ". XX"]}
        async with running(world) as stack:
            whole = await events_of(stack, question())
        for most in range(1, len(whole)):
            before = whole[:most]
            async with running(world) as other:
                rest = await events_of(other, question(), handed_over(before))
            accepted = handed_over([*before, *rest])
            assert accepted is not None
            assert text(before) + text(rest) == accepted.text


async def test_a_deadline_that_has_passed_loses_nothing_that_was_accepted() -> None:
    config, fields = WORLDS["held back"]
    async with running(config) as stack:
        whole = await events_of(stack, question(**fields))
        held = next(
            e
            for e in whole
            if isinstance(e, Written) and e.checkpoint.shown < len(e.checkpoint.text)
        )
        before = whole[: whole.index(held) + 1]
    late = replace(question(**fields), budget=Budget(seconds=5))
    past = handed_over(before)
    assert past is not None
    async with running(config) as other:
        rest = await events_of(other, late, replace(past, elapsed=10.0))
    assert text(before) + text(rest) == past.text
    assert isinstance(rest[-1], Ended) and rest[-1].stop_reason == "budget_time"
    ended = whole[-1]
    assert isinstance(ended, Ended) and rest[-1].prompt_tokens == ended.prompt_tokens > 0
    assert 0 < rest[-1].completion_tokens <= ended.completion_tokens


async def test_what_is_left_to_spend_counts_from_where_it_goes_on() -> None:
    config, fields = WORLDS["alone"]
    async with running(config) as stack:
        whole = await events_of(stack, question(**fields))
        used = whole[-1].summary["usage"]["total_tokens"]  # type: ignore[union-attr]
    async with running(config) as stack:
        before = await events_of(stack, question(**fields), most=len(whole) // 2)
        spent = handed_over(before)
        assert spent is not None
        past = sum(u.prompt_tokens + u.completion_tokens for u in spent.usage.values())
        rest = Budget(tokens=used - past + 50)
        after = await events_of(stack, question(**fields, again=True, left=rest))
        assert text(after) == text(whole)
    async with running(config) as stack:
        await events_of(stack, question(**fields), most=2)
        short = await events_of(stack, question(**fields, again=True, left=Budget(tokens=1)))
    assert isinstance(short[-1], Ended) and short[-1].stop_reason == "budget_tokens"
    assert len(text(short)) < len(text(whole))
