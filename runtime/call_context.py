"""On whose behalf an engine call is made: known all the way from a session to an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """What a call carries besides its tokens; it changes where and when a call is served, never
    its result."""

    request: str = ""
    """Trace id: calls of one request go to the replica whose cache holds its prefix."""
    priority: int = 0
    """Lower is sooner, where the engine schedules by priority."""
    attempt: int = 0
    """How often the same call has failed; a repeated one need not go where the first went."""
    seconds: float | None = None
    """How long its sender waits for the reply. The engine stops then, also when the sender is gone
    and cannot say so."""
    patient: bool = False
    """The answer cannot go on without this member: the call waits for a new replica where there is
    none, as long as its sender waits."""
    traceparent: str = ""
    """The coordinator's activity, where it is recorded (runtime/observability/tracing.py)."""


_NOBODYS = Terms()
_TERMS: ContextVar[Terms] = ContextVar("terms", default=_NOBODYS)


def current_terms() -> Terms:
    """Of the task that asks; the defaults outside any request."""
    return _TERMS.get()


@contextmanager
def on_terms(terms: Terms) -> Iterator[None]:
    """Calls made inside are made on these terms."""
    token = _TERMS.set(terms)
    try:
        yield
    finally:
        _TERMS.reset(token)


@dataclass(slots=True)
class Whose:
    """The request at work."""

    request_id: str = ""
    """The client's (``x-request-id``)."""
    trace_id: str = ""
    """Our own; the gateway knows it once it has read the request."""


_WHOSE: ContextVar[Whose | None] = ContextVar("whose", default=None)


def whose() -> Whose:
    """Empty outside any request."""
    return _WHOSE.get() or Whose()


@contextmanager
def on_behalf_of(request: Whose) -> Iterator[None]:
    token = _WHOSE.set(request)
    try:
        yield
    finally:
        _WHOSE.reset(token)
