"""On whose behalf an engine call is made: known all the way from a session to an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallContext:
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
    wait_for_replica: bool = False
    """The answer cannot go on without this member: the call waits for a new replica where there is
    none, as long as its sender waits."""
    traceparent: str = ""
    """The coordinator's activity, where it is recorded (runtime/observability/tracing.py)."""


_NOBODYS = CallContext()
_TERMS: ContextVar[CallContext] = ContextVar("terms", default=_NOBODYS)


def current_call_context() -> CallContext:
    """Of the task that asks; the defaults outside any request."""
    return _TERMS.get()


@contextmanager
def use_call_context(call_context: CallContext) -> Iterator[None]:
    """Calls made inside are made on these terms."""
    token = _TERMS.set(call_context)
    try:
        yield
    finally:
        _TERMS.reset(token)


@dataclass(slots=True)
class RequestIds:
    """The request at work."""

    request_id: str = ""
    """The client's (``x-request-id``)."""
    trace_id: str = ""
    """Our own; the gateway knows it once it has read the request."""


_WHOSE: ContextVar[RequestIds | None] = ContextVar("whose", default=None)


def current_request() -> RequestIds:
    """Empty outside any request."""
    return _WHOSE.get() or RequestIds()


@contextmanager
def request_context(request: RequestIds) -> Iterator[None]:
    token = _WHOSE.set(request)
    try:
        yield
    finally:
        _WHOSE.reset(token)
