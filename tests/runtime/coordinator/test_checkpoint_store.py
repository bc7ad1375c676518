"""Coordinators remember the last answers, and only those."""

from __future__ import annotations

from dataclasses import replace

from runtime.coordinator.checkpoint_store import CheckpointStore
from runtime.types.events import Checkpoint, MemberUsage
from runtime.types.query import Budget, Query
from runtime.types.spans import Span, TokenChoice


def query(id: str, **fields: object) -> Query:
    return replace(Query(id=id, model="m"), **fields)  # type: ignore[arg-type]


def test_an_answer_is_recalled_as_it_was_noted() -> None:
    recent, spans = CheckpointStore(), [Span("a", "ann", 0)]
    recent.note(query("1"), Checkpoint("a", 1), spans)
    spans.append(Span("b", "bob", 1))
    known = recent.recall(query("1", again=True, request_id="another", traceparent="00-1"))
    assert known == Checkpoint("a", 1, spans=(spans[0],))


def test_what_was_used_so_far_is_distinguished_from_what_comes() -> None:
    recent, used = (
        CheckpointStore(),
        {"a": MemberUsage(prompt_tokens=3), "b": MemberUsage(cost=0.5)},
    )
    recent.note(query("1"), Checkpoint(usage=used), [])
    known = recent.recall(query("1", again=True, left=Budget(tokens=5)))
    assert known is not None and known.before == MemberUsage(prompt_tokens=3, cost=0.5)


def test_a_callers_answer_is_nobody_elses() -> None:
    recent = CheckpointStore()
    recent.note(query("1", caller="ann"), Checkpoint("of ann"), [])
    recent.note(query("1", caller="bob"), Checkpoint("of bob"), [])
    assert recent.recall(query("1")) is None
    known = recent.recall(query("1", caller="ann"))
    assert known is not None and known.text == "of ann"


def test_tokens_that_nobody_requested_are_not_kept() -> None:
    token = TokenChoice(b"a", -1.0)
    for logprobs, kept in ((None, ()), (0, (token,))):
        recent = CheckpointStore()
        recent.note(
            query("1", logprobs=logprobs), Checkpoint("a"), [Span("a", "x", 0, tokens=(token,))]
        )
        recent.settle(query("1", logprobs=logprobs))
        known = recent.recall(query("1", logprobs=logprobs))
        assert known is not None and known.spans[0].tokens == kept


def test_answers_that_have_ended_are_forgotten_first() -> None:
    recent = CheckpointStore(capacity=2)
    recent.note(query("1"), Checkpoint("1"), [])
    recent.note(query("2"), Checkpoint("2", ending="eos"), [])
    recent.note(query("3"), Checkpoint("3"), [])
    assert recent.recall(query("2")) is None and recent.recall(query("1")) is not None


def test_only_the_same_question_is_answered_from_memory() -> None:
    recent = CheckpointStore()
    recent.note(query("1"), Checkpoint("a"), [])
    assert recent.recall(query("2")) is None
    assert recent.recall(query("1", prompt="other")) is None
    assert recent.recall(query("1", seed=1)) is None


def test_old_answers_are_forgotten() -> None:
    now = 0.0
    recent = CheckpointStore(capacity=2, seconds=10, clock=lambda: now)
    for id in "123":
        recent.note(query(id), Checkpoint(id), [])
    assert recent.recall(query("1")) is None and recent.recall(query("2")) is not None
    now = 6.0
    recent.note(query("2"), Checkpoint("2, on"), [])
    now = 11.0
    assert recent.recall(query("3")) is None
    assert len(recent) == 1, "3 has gone, 2 had news since"
    now = 100.0
    recent.purge()
    assert len(recent) == 0
