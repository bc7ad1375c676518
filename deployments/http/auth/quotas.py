"""How much a key may still do. Pure: moments come from the caller, in seconds since 1970."""

from __future__ import annotations

import calendar
import math
import time
from dataclasses import dataclass, replace
from typing import Final

from runtime.config.access import Allowance, KeyBudget, Period

ROUNDING: Final = 1e-9
"""What adding floats may leave over."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Requests that may be made at once; each one made comes back after a while."""

    level: float
    at: float

    def filled(self, size: float, per_second: float, now: float) -> Bucket:
        """As it is ``now``. A clock that was set back gives nothing."""
        gained = max(now - self.at, 0.0) * per_second
        return Bucket(min(self.level + gained, size), now)

    def wait(self, per_second: float) -> float:
        """Seconds until the next request; 0 when it may be made now."""
        return 0.0 if self.level > 1.0 - ROUNDING else (1.0 - self.level) / per_second

    def taken(self) -> Bucket:
        return replace(self, level=self.level - 1.0)


@dataclass(frozen=True, slots=True)
class Spent:
    """In the period that began at ``since``."""

    since: float = 0.0
    tokens: int = 0
    cost: float = 0.0

    def at(self, now: float, period: Period) -> Spent:
        """Nothing, once the next period has begun."""
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
    """When the period that ``now`` is in began, in UTC."""
    year, month, day, hour, *_ = time.gmtime(now)
    if period == "hour":
        return calendar.timegm((year, month, day, hour, 0, 0))
    if period == "day":
        return calendar.timegm((year, month, day, 0, 0, 0))
    return calendar.timegm((year, month, 1, 0, 0, 0))


def ends(now: float, period: Period) -> float:
    """When the next one begins."""
    if period == "month":
        year, month, *_ = time.gmtime(now)
        return calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))
    return began(now, period) + (3600.0 if period == "hour" else 86400.0)


def part(allowance: Allowance, replicas: int) -> Allowance:
    """What one of ``replicas`` gateways grants, so that together they grant the whole; of what
    cannot be divided at least one each."""
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
