"""Context variables of a request and of its engine calls, from the session to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallContext:
    """What an engine call carries besides its arguments. It affects where and when the call is
    served, never its result."""

    request: str = ""
    """Trace id: calls of one request go to the same replica, whose cache holds the prefix."""
    priority: int = 0
    """Lower is served first, by engines that schedule by priority."""
    attempt: int = 0
    """Failed attempts before this one; a retry may go to another replica."""
    seconds: float | None = None
    """Timeout of the caller. The engine stops the call then, even if the caller is gone and cannot
    abort it."""
    wait_for_replica: bool = False
    """The request cannot continue without this member: without a replica the call waits for a new
    one, up to ``seconds``."""
    traceparent: str = ""
    """The coordinator's activity, if recorded (runtime/observability/tracing.py)."""


_DEFAULT = CallContext()
_CALL_CONTEXT: ContextVar[CallContext] = ContextVar("call_context", default=_DEFAULT)


def current_call_context() -> CallContext:
    """The context of the current task; the defaults outside a request."""
    return _CALL_CONTEXT.get()


@contextmanager
def use_call_context(call_context: CallContext) -> Iterator[None]:
    """Engine calls inside the block carry ``call_context``."""
    token = _CALL_CONTEXT.set(call_context)
    try:
        yield
    finally:
        _CALL_CONTEXT.reset(token)


@dataclass(slots=True)
class RequestIds:
    """Ids of the request being served."""

    request_id: str = ""
    """The client's id (``x-request-id``)."""
    trace_id: str = ""
    """The gateway's id, set once it has parsed the request."""


_REQUEST: ContextVar[RequestIds | None] = ContextVar("request", default=None)


def current_request() -> RequestIds:
    """The ids of the current request; empty outside one."""
    return _REQUEST.get() or RequestIds()


@contextmanager
def request_context(request: RequestIds) -> Iterator[None]:
    token = _REQUEST.set(request)
    try:
        yield
    finally:
        _REQUEST.reset(token)
