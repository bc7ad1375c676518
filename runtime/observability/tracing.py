"""Tracing in terms of OpenTelemetry's spans; costs nothing while no recorder is set.

Spans are called activities here, since a span is a piece of an answer in this code. No activity
contains text of prompts or answers. docs/observability.md lists them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, Literal, Protocol, TypeAlias

Facts: TypeAlias = Mapping[str, str | bool | int | float | list[str] | None]
"""Attributes by name; ``None`` values are left out."""
Kind: TypeAlias = Literal["server", "client", "internal"]


class Activity(Protocol):
    """An operation in progress."""

    @property
    def traceparent(self) -> str:
        """W3C Trace Context header that makes another activity its child, in any process."""
        ...

    def note(self, facts: Facts) -> None:
        """Sets attributes."""
        ...

    def end(self, error: str | None = None) -> None:
        """``error``: the type of the exception that ended it."""
        ...


class Recorder(Protocol):
    """Backend of activities; ``runtime/observability/otel.py`` implements it."""

    def start(self, name: str, kind: Kind, parent: str, facts: Facts) -> Activity: ...

    def close(self) -> None: ...


class Unrecorded:
    """An activity without a recorder."""

    traceparent = ""

    def note(self, facts: Facts) -> None:
        pass

    def end(self, error: str | None = None) -> None:
        pass


UNRECORDED: Final = Unrecorded()
_CURRENT: ContextVar[Activity] = ContextVar("activity", default=UNRECORDED)
_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """Sets the recorder of this process; ``None`` turns tracing off."""
    global _recorder
    _recorder = recorder


def stop_recording() -> None:
    """Exports pending activities and turns tracing off."""
    if _recorder is not None:
        _recorder.close()
    record_with(None)


def current_activity() -> Activity:
    return _CURRENT.get()


def begin(name: str, facts: Facts, *, kind: Kind = "internal", parent: str = "") -> Activity:
    """Starts an activity that the caller ends; without ``parent`` a child of the current one."""
    if _recorder is None:
        return UNRECORDED
    return _recorder.start(name, kind, parent or _CURRENT.get().traceparent, facts)


@contextmanager
def within(activity: Activity) -> Iterator[None]:
    """Makes ``activity`` the current one inside the block."""
    token = _CURRENT.set(activity)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def doing(
    name: str, facts: Facts, *, kind: Kind = "internal", parent: str = ""
) -> AbstractContextManager[Activity]:
    """An activity that lasts as long as the block and is current inside it."""
    if _recorder is None:
        return nullcontext(UNRECORDED)
    return _doing(begin(name, facts, kind=kind, parent=parent))


@contextmanager
def _doing(activity: Activity) -> Iterator[Activity]:
    error: str | None = None
    try:
        with within(activity):
            yield activity
    except BaseException as fault:
        error = broke_off(fault)
        raise
    finally:
        activity.end(error)


def broke_off(fault: BaseException) -> str | None:
    """The error's type; ``None`` for a cancellation."""
    stopped = isinstance(fault, asyncio.CancelledError | GeneratorExit)
    return None if stopped else type(fault).__name__
