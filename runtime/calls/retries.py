"""Retries of member calls, with timeout and the request's deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from runtime.call_context import current_call_context, use_call_context
from runtime.calls.ledger import Ledger
from runtime.errors import (
    BudgetSpent,
    ContextOverflow,
    EngineFault,
    MemberFailed,
    Overloaded,
    ReplicaUnavailable,
)
from runtime.observability.logs import log_event
from runtime.observability.tracing import Facts, traced_activity
from runtime.types.events import MemberUsage

logger = logging.getLogger(__name__)

T = TypeVar("T")


class RetryPolicy(Protocol):
    """Timeout and number of retries, part of a member's configuration."""

    @property
    def timeout_s(self) -> float: ...

    @property
    def retries(self) -> int: ...


async def with_retries(
    config: RetryPolicy, member: str, ledger: Ledger, call: Callable[[], Awaitable[T]]
) -> T:
    """Awaits ``call()`` with timeout, deadline and retries.

    Raises ``MemberFailed`` when every attempt failed, ``BudgetSpent`` at the deadline, and
    ``Overloaded`` when the member's queue is full before the answer has begun. Errors that a retry
    cannot mend (``ContextOverflow``, ``BadRequest``, ``Unsupported``) are raised at once.
    """
    reason, pause, unavailable = "", 0.0, False
    for attempt in range(config.retries + 1):
        if attempt:
            facts = {"member": member, "reason": reason}
            log_event(logger, logging.WARNING, "member called again", **facts, attempt=attempt)
        await asyncio.sleep(_shorter(pause, ledger.left()))
        left, pause, unavailable = ledger.left(), 0.0, False
        try:
            seconds = _shorter(config.timeout_s, left)
            async with asyncio.timeout(seconds):
                with use_call_context(replace(current_call_context(), seconds=seconds)):
                    return await call()
        except TimeoutError:
            if left is not None and left <= config.timeout_s:
                raise BudgetSpent("time") from None
            reason = f"no reply in {config.timeout_s:g} s"
        except EngineFault as fault:
            reason, unavailable = str(fault), isinstance(fault, ReplicaUnavailable)
        except ContextOverflow as overflow:  # the engine knows its model, not the member's name
            raise ContextOverflow(member, overflow.tokens, overflow.limit) from None
        except Overloaded as overloaded:
            if not ledger.begun:
                raise
            reason, pause = str(overloaded), overloaded.retry_after
    raise MemberFailed(member, reason, unavailable)


async def booked(
    config: RetryPolicy, name: str, ledger: Ledger, call: Callable[[int], Awaitable[T]]
) -> T:
    """``with_retries`` within the budget; each attempt is traced and booked in the ledger. ``call``
    gets the number of attempts before. Raises as ``with_retries``, and ``BudgetSpent``."""
    tries = 0

    async def attempt_once() -> T:
        nonlocal tries
        ledger.check()
        tries += 1
        started = time.monotonic()
        facts: Facts = {"orchestrion.member": name, "orchestrion.attempt": tries - 1}
        try:
            with traced_activity(f"call {name}", facts, kind="client"):
                return await call(tries - 1)
        except asyncio.CancelledError:
            ledger.cancelled(name)
            raise
        finally:
            waited = time.monotonic() - started
            ledger.book(name, MemberUsage(calls=1, seconds=waited, retries=int(tries > 1)))

    return await with_retries(config, name, ledger, attempt_once)


def _shorter(seconds: float, left: float | None) -> float:
    return seconds if left is None else min(seconds, max(left, 0.0))
