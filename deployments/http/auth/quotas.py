"""Rate limits and budgets of a key. Pure functions; times are seconds since 1970."""

from __future__ import annotations

import calendar
import math
import time
from dataclasses import dataclass, replace
from typing import Final

from runtime.config.access import Allowance, KeyBudget, Period

ROUNDING: Final = 1e-9
"""Tolerance for rounding errors of sums."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: requests that may be sent at once, refilled over time."""

    level: float
    at: float

    def filled(self, size: float, per_second: float, now: float) -> Bucket:
        """The bucket at time ``now``. A clock that was set back refills nothing."""
        gained = max(now - self.at, 0.0) * per_second
        return Bucket(min(self.level + gained, size), now)

    def wait(self, per_second: float) -> float:
        """Seconds until the next request is allowed; 0 when it is allowed now."""
        return 0.0 if self.level > 1.0 - ROUNDING else (1.0 - self.level) / per_second

    def taken(self) -> Bucket:
        return replace(self, level=self.level - 1.0)


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens and cost spent in the period that began at ``since``."""

    since: float = 0.0
    tokens: int = 0
    cost: float = 0.0

    def at(self, now: float, period: Period) -> Spent:
        """The same in the period of ``now``: zero in a new period."""
        begun = began(now, period)
        return self if self.since >= begun else Spent(begun)

    def plus(self, tokens: int, cost: float) -> Spent:
        return replace(self, tokens=self.tokens + tokens, cost=self.cost + cost)


@dataclass(frozen=True, slots=True)
class Left:
    """Of a budget; ``None`` is no limit."""

    tokens: int | None
    cost: float | None

    @property
    def gone(self) -> bool:
        return self.tokens == 0 or self.cost == 0.0


def left(budget: KeyBudget, spent: Spent) -> Left:
    tokens = None if budget.tokens is None else max(budget.tokens - spent.tokens, 0)
    cost = None if budget.cost is None else budget.cost - spent.cost
    return Left(tokens, None if cost is None else cost if cost > ROUNDING else 0.0)


def began(now: float, period: Period) -> float:
    """Start of the period of ``now``, in UTC."""
    year, month, day, hour, *_ = time.gmtime(now)
    if period == "hour":
        return calendar.timegm((year, month, day, hour, 0, 0))
    if period == "day":
        return calendar.timegm((year, month, day, 0, 0, 0))
    return calendar.timegm((year, month, 1, 0, 0, 0))


def ends(now: float, period: Period) -> float:
    """Start of the next period, in UTC."""
    if period == "month":
        year, month, *_ = time.gmtime(now)
        return calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))
    return began(now, period) + (3600.0 if period == "hour" else 86400.0)


def part(allowance: Allowance, replicas: int) -> Allowance:
    """The share of one of ``replicas`` gateways; the shares sum up to the allowance. Integers are
    at least 1."""
    if replicas == 1:
        return allowance
    budget, rate = allowance.budget, allowance.requests_per_minute
    concurrent = allowance.concurrent
    if budget is not None:
        tokens = None if budget.tokens is None else max(budget.tokens // replicas, 1)
        cost = None if budget.cost is None else budget.cost / replicas
        budget = budget.model_copy(update={"tokens": tokens, "cost": cost})
    return allowance.model_copy(
        update={
            "budget": budget,
            "requests_per_minute": None if rate is None else rate / replicas,
            "concurrent": None if concurrent is None else math.ceil(concurrent / replicas),
        }
    )
