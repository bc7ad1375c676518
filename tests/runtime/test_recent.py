"""Coordinators remember the last answers, and only those."""

from __future__ import annotations

from dataclasses import replace

from runtime.recent import Recent
from runtime.types import Checkpoint, Query, Span


def query(id: str, **fields: object) -> Query:
    return replace(Query(id=id, model="m"), **fields)  # type: ignore[arg-type]


def test_an_answer_is_recalled_as_it_was_noted() -> None:
    recent, spans = Recent(), [Span("a", "ann", 0)]
    recent.note(query("1"), Checkpoint("a", 1), spans)
    spans.append(Span("b", "bob", 1))
    known = recent.recall(query("1", again=True, request_id="another", traceparent="00-1"))
    assert known == Checkpoint("a", 1, spans=(spans[0],))


def test_only_the_same_question_is_answered_from_memory() -> None:
    recent = Recent()
    recent.note(query("1"), Checkpoint("a"), [])
    assert recent.recall(query("2")) is None
    assert recent.recall(query("1", prompt="other")) is None
    assert recent.recall(query("1", seed=1)) is None


def test_old_answers_are_forgotten() -> None:
    now = 0.0
    recent = Recent(kept=2, seconds=10, clock=lambda: now)
    for id in "123":
        recent.note(query(id), Checkpoint(id), [])
    assert recent.recall(query("1")) is None and recent.recall(query("2")) is not None
    now = 6.0
    recent.note(query("2"), Checkpoint("2, on"), [])
    now = 11.0
    assert recent.recall(query("3")) is None
    recent.note(query("4"), Checkpoint("4"), [])
    assert len(recent) == 2, "3 has gone, 2 had news since"
    now = 100.0
    recent.note(query("5"), Checkpoint("5"), [])
    assert len(recent) == 1
