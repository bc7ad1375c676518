"""Metrics and log lines of coordinators and of members' replicas."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, get_args

from runtime.observability.logs import log_event
from runtime.observability.metrics import (
    ANSWER_SECONDS,
    ANSWERS,
    ANSWERS_IN_PROGRESS,
    BATCH_SECONDS,
    CACHED_TOKENS,
    CALL_SECONDS,
    CALLS,
    CALLS_IN_PROGRESS,
    CANCELLED,
    COMPLETION_TOKENS,
    COST,
    DEGRADED,
    DROPS,
    FIRST_SPAN_SECONDS,
    MESSAGE_SECONDS,
    MESSAGES_IN_PROGRESS,
    PROMPT_TOKENS,
    QUESTIONS,
    RETRIES,
    ROUNDS,
    VISIBLE_TOKENS,
    Meter,
)
from runtime.observability.tracing import current_activity
from runtime.types.events import MemberUsage, StopReason

logger = logging.getLogger(__name__)

COMPLETE: Final = frozenset(get_args(StopReason))
"""Outcomes of answers that were completed."""


class AnswerRecorder:
    """Records the answers and member calls of one ensemble, for its coordinator."""

    def __init__(self, ensemble: str, meter: Meter) -> None:
        self._ensemble = ensemble
        self._meter = meter
        self._in_progress = 0

    def begun(self) -> None:
        """An answer started; ``ended`` always follows."""
        self._progress(1)
        log_event(logger, logging.DEBUG, "answer started", ensemble=self._ensemble)

    def ended(
        self,
        outcome: str,
        tokens: int,
        seconds: float,
        *,
        prompt_tokens: int = 0,
        cost: float = 0.0,
        degraded: bool = False,
    ) -> None:
        """An answer ended. ``tokens``: completion tokens sent to the client."""
        self._progress(-1)
        self._tell(outcome, tokens, seconds, prompt_tokens, cost, degraded)
        self._meter.record(ANSWERS, 1, self._ensemble, outcome)
        if tokens:
            self._meter.record(VISIBLE_TOKENS, tokens, self._ensemble)
        if outcome in COMPLETE:
            self._meter.record(ANSWER_SECONDS, seconds, self._ensemble)
            if degraded:
                self._meter.record(DEGRADED, 1, self._ensemble)

    def _tell(
        self,
        outcome: str,
        tokens: int,
        seconds: float,
        prompt_tokens: int,
        cost: float,
        degraded: bool,
    ) -> None:
        """The answer's log line, and the final attributes of its activity."""
        log_event(
            logger,
            logging.INFO if outcome in COMPLETE or outcome == "cancelled" else logging.WARNING,
            "answer ended",
            ensemble=self._ensemble,
            outcome=outcome,
            seconds=seconds,
            tokens=tokens,
            degraded="yes" if degraded else None,
        )
        current_activity().note(
            {
                "gen_ai.usage.input_tokens": prompt_tokens,
                "gen_ai.usage.output_tokens": tokens,
                "gen_ai.response.finish_reasons": [outcome],
                "orchestrion.outcome": outcome,
                "orchestrion.cost": cost,
                "orchestrion.degraded": degraded,
            }
        )

    def accepted(self, author: str) -> None:
        self._meter.record(ROUNDS, 1, self._ensemble, author)

    def waited(self, seconds: float) -> None:
        """Time from the request to the first span of an answer."""
        self._meter.record(FIRST_SPAN_SECONDS, seconds, self._ensemble)

    def dropped(self, member: str, step: int, reason: str) -> None:
        self._meter.record(DROPS, 1, self._ensemble, member)
        facts: dict[str, str | float] = {"ensemble": self._ensemble, "member": member}
        log_event(logger, logging.WARNING, "member dropped", **facts, step=step, reason=reason)

    def cancelled(self, member: str) -> None:
        """A member call was cancelled before its reply."""
        self._meter.record(CANCELLED, 1, self._ensemble, member)

    def booked(self, member: str, usage: MemberUsage) -> None:
        """Usage of a member; ``usage.seconds`` counts only together with ``usage.calls``."""
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


class LoadRecorder:
    """Records the messages and calls in progress on a member's replica."""

    def __init__(self, member: str, meter: Meter) -> None:
        self._member = member
        self._meter = meter
        self._messages = 0
        self._calls = 0

    @contextmanager
    def message(self, calls: int) -> Iterator[None]:
        """Counts a message of ``calls`` calls as in progress inside the block."""
        self._step(1, calls)
        started = time.monotonic()
        try:
            yield
        finally:
            self._step(-1, -calls)
            self._meter.record(MESSAGE_SECONDS, time.monotonic() - started, self._member)

    def _step(self, messages: int, calls: int) -> None:
        self._messages += messages
        self._calls += calls
        self._meter.record(MESSAGES_IN_PROGRESS, self._messages, self._member)
        self._meter.record(CALLS_IN_PROGRESS, self._calls, self._member)


class BatchMetrics:
    """Records the batches of a reward model's or text encoder's replica."""

    def __init__(self, aux_model: str, meter: Meter) -> None:
        self._aux_model = aux_model
        self._meter = meter

    @contextmanager
    def batch(self, questions: int) -> Iterator[None]:
        """Times a batch of ``questions`` items."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._meter.record(QUESTIONS, questions, self._aux_model)
            self._meter.record(BATCH_SECONDS, time.monotonic() - started, self._aux_model)
