"""What a process does on whose behalf, as OpenTelemetry's spans tell it; costs nothing where nobody
records it.

They are called activities here, since a span is a piece of an answer in this code. No activity
carries text of prompts or answers. docs/observability.md lists them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, Literal, Protocol, TypeAlias

Facts: TypeAlias = Mapping[str, str | bool | int | float | list[str] | None]
"""Attributes by name; those that are ``None`` are left out."""
Kind: TypeAlias = Literal["server", "client", "internal"]


class Activity(Protocol):
    """One under way."""

    @property
    def traceparent(self) -> str:
        """What makes another one its child, also in another process (W3C Trace Context)."""
        ...

    def note(self, facts: Facts) -> None: ...

    def end(self, error: str | None = None) -> None:
        """``error``: the type of what broke it off."""
        ...


class Recorder(Protocol):
    """Where activities go; ``runtime/observability/otel.py`` has the one."""

    def start(self, name: str, kind: Kind, parent: str, facts: Facts) -> Activity: ...

    def close(self) -> None: ...


class Unrecorded:
    """An activity that nobody records."""

    traceparent = ""

    def note(self, facts: Facts) -> None:
        pass

    def end(self, error: str | None = None) -> None:
        pass


UNRECORDED: Final = Unrecorded()
_CURRENT: ContextVar[Activity] = ContextVar("activity", default=UNRECORDED)
_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """From now on, in this process."""
    global _recorder
    _recorder = recorder


def stop_recording() -> None:
    """Sends what has not been sent yet."""
    if _recorder is not None:
        _recorder.close()
    record_with(None)


def current_activity() -> Activity:
    return _CURRENT.get()


def begin(name: str, facts: Facts, *, kind: Kind = "internal", parent: str = "") -> Activity:
    """The caller ends it. Without a parent it belongs to the current one, if there is one."""
    if _recorder is None:
        return UNRECORDED
    return _recorder.start(name, kind, parent or _CURRENT.get().traceparent, facts)


@contextmanager
def within(activity: Activity) -> Iterator[None]:
    """It is the current one inside."""
    token = _CURRENT.set(activity)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def doing(
    name: str, facts: Facts, *, kind: Kind = "internal", parent: str = ""
) -> AbstractContextManager[Activity]:
    """An activity as long as its block, current inside."""
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
    """The error's type; ``None`` where somebody merely stopped waiting."""
    stopped = isinstance(fault, asyncio.CancelledError | GeneratorExit)
    return None if stopped else type(fault).__name__
