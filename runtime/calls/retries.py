"""Asking a member again: its timeout, the request's deadline, its retries."""

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
from runtime.observability.logs import tell
from runtime.observability.tracing import Facts, doing
from runtime.types.events import MemberUsage

logger = logging.getLogger(__name__)

T = TypeVar("T")


class RetryPolicy(Protocol):
    """How long and how often something is asked; a part of its configuration."""

    @property
    def timeout_s(self) -> float: ...

    @property
    def retries(self) -> int: ...


async def with_retries(
    config: RetryPolicy, member: str, ledger: Ledger, ask: Callable[[], Awaitable[T]]
) -> T:
    """Asks with timeout, deadline and retries.

    Raises ``MemberFailed`` when every try failed, ``BudgetSpent`` at a limit, ``Overloaded`` when
    a member is full before the answer has begun, and hands on what a retry cannot mend
    (``ContextOverflow``, ``BadRequest``, ``Unsupported``).
    """
    reason, pause, unavailable = "", 0.0, False
    for failed in range(config.retries + 1):
        if failed:
            told = {"member": member, "reason": reason}
            tell(logger, logging.WARNING, "member asked again", **told, attempt=failed)
        await asyncio.sleep(_sooner(pause, ledger.left()))
        left = ledger.left()
        try:
            seconds = _sooner(config.timeout_s, left)
            async with asyncio.timeout(seconds):
                with use_call_context(replace(current_call_context(), seconds=seconds)):
                    return await ask()
        except TimeoutError:
            if left is not None and left <= config.timeout_s:
                raise BudgetSpent("time") from None
            reason, unavailable = f"no reply in {config.timeout_s:g} s", False
        except EngineFault as fault:
            reason, unavailable = str(fault), isinstance(fault, ReplicaUnavailable)
        except ContextOverflow as full:  # the engine knows its model, not its member's name
            raise ContextOverflow(member, full.tokens, full.limit) from None
        except Overloaded as busy:
            if not ledger.begun:
                raise
            reason, pause = str(busy), busy.retry_after
    raise MemberFailed(member, reason, unavailable)


async def booked(
    config: RetryPolicy, name: str, ledger: Ledger, ask: Callable[[int], Awaitable[T]]
) -> T:
    """``persistently``, within the budget, each try in the accounts. ``ask`` is given the number of
    tries before."""
    tries = 0

    async def once() -> T:
        nonlocal tries
        ledger.check()
        tries += 1
        started = time.monotonic()
        facts: Facts = {"orchestrion.member": name, "orchestrion.attempt": tries - 1}
        try:
            with doing(f"call {name}", facts, kind="client"):
                return await ask(tries - 1)
        except asyncio.CancelledError:
            ledger.cancelled(name)
            raise
        finally:
            waited = time.monotonic() - started
            ledger.book(name, MemberUsage(calls=1, seconds=waited, retries=int(tries > 1)))

    return await with_retries(config, name, ledger, once)


def _sooner(seconds: float, left: float | None) -> float:
    return seconds if left is None else min(seconds, max(left, 0.0))
