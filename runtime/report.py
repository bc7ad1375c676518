"""What coordinators and members' replicas tell of their work, as it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, get_args

from runtime.metrics import (
    ANSWER_SECONDS,
    ANSWERS,
    ANSWERS_IN_PROGRESS,
    CACHED_TOKENS,
    CALL_SECONDS,
    CALLS,
    CALLS_IN_PROGRESS,
    CANCELLED,
    COMPLETION_TOKENS,
    COST,
    DROPS,
    FIRST_SPAN_SECONDS,
    MESSAGES_IN_PROGRESS,
    PROMPT_TOKENS,
    RETRIES,
    ROUNDS,
    VISIBLE_TOKENS,
    Meter,
)
from runtime.types import MemberUsage, StopReason

COMPLETE: Final = frozenset(get_args(StopReason))
"""Outcomes of answers that came to their end."""


class Report:
    """What a coordinator tells of its ensemble, as it happens."""

    def __init__(self, ensemble: str, meter: Meter) -> None:
        self._ensemble = ensemble
        self._meter = meter
        self._in_progress = 0

    def begun(self) -> None:
        """An answer; ``ended`` follows in any case."""
        self._progress(1)

    def ended(self, outcome: str, tokens: int, seconds: float) -> None:
        self._progress(-1)
        self._meter.record(ANSWERS, 1, self._ensemble, outcome)
        if tokens:
            self._meter.record(VISIBLE_TOKENS, tokens, self._ensemble)
        if outcome in COMPLETE:
            self._meter.record(ANSWER_SECONDS, seconds, self._ensemble)

    def accepted(self, author: str) -> None:
        self._meter.record(ROUNDS, 1, self._ensemble, author)

    def waited(self, seconds: float) -> None:
        """For the first span of an answer."""
        self._meter.record(FIRST_SPAN_SECONDS, seconds, self._ensemble)

    def dropped(self, member: str) -> None:
        self._meter.record(DROPS, 1, self._ensemble, member)

    def cancelled(self, member: str) -> None:
        """A call whose reply nobody waits for any more."""
        self._meter.record(CANCELLED, 1, self._ensemble, member)

    def booked(self, member: str, usage: MemberUsage) -> None:
        """A part of what a member was asked; time comes with the one call that it was spent on."""
        parts = (
            (CALLS, usage.calls),
            (RETRIES, usage.retries),
            (PROMPT_TOKENS, usage.prompt_tokens),
            (CACHED_TOKENS, usage.cached_tokens),
            (COMPLETION_TOKENS, usage.completion_tokens),
            (COST, usage.cost),
        )
        for metric, amount in parts:
            if amount:
                self._meter.record(metric, amount, self._ensemble, member)
        if usage.calls:
            self._meter.record(CALL_SECONDS, usage.seconds, self._ensemble, member)

    def _progress(self, step: int) -> None:
        self._in_progress += step
        self._meter.record(ANSWERS_IN_PROGRESS, self._in_progress, self._ensemble)


class Load:
    """What a member's replica is at work on."""

    def __init__(self, member: str, meter: Meter) -> None:
        self._member = member
        self._meter = meter
        self._messages = 0
        self._calls = 0

    @contextmanager
    def message(self, calls: int) -> Iterator[None]:
        """While a message of so many calls is worked on."""
        self._step(1, calls)
        try:
            yield
        finally:
            self._step(-1, -calls)

    def _step(self, messages: int, calls: int) -> None:
        self._messages += messages
        self._calls += calls
        self._meter.record(MESSAGES_IN_PROGRESS, self._messages, self._member)
        self._meter.record(CALLS_IN_PROGRESS, self._calls, self._member)
