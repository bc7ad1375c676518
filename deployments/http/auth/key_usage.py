"""Usage of one API key at this gateway: the state behind its limits."""

from __future__ import annotations

import time
from collections.abc import Callable

from deployments.http.auth.quotas import Bucket, Spent, ends, left
from runtime.config.access import Allowance
from runtime.errors import QuotaSpent, TooMany
from runtime.types.query import Budget

BUSY_RETRY_S = 1.0


class KeyUsage:
    """Usage by key name, so that it survives new keys and limits of that name."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._bucket: Bucket | None = None
        self._spent = Spent()
        self.running = 0

    def enter(self, allowance: Allowance) -> None:
        """Counts a new request. Raises ``TooMany`` or ``QuotaSpent`` without counting it."""
        now = self._clock()
        if allowance.concurrent is not None and self.running >= allowance.concurrent:
            raise TooMany(f"{allowance.concurrent} requests at a time", BUSY_RETRY_S)
        if (budget := allowance.budget) is not None:
            self._spent = self._spent.at(now, budget.period)
            if left(budget, self._spent).gone:
                limits = [f"{budget.tokens} tokens"] if budget.tokens is not None else []
                limits += [f"{budget.cost:g} in cost"] if budget.cost is not None else []
                quota = f"{' and '.join(limits)} a {budget.period}"
                raise QuotaSpent(quota, ends(now, budget.period) - now)
        if (rate := allowance.requests_per_minute) is not None:
            size, per_second = max(rate, 1.0), rate / 60
            bucket = (self._bucket or Bucket(size, now)).filled(size, per_second, now)
            if wait := bucket.wait(per_second):
                raise TooMany(f"{rate:g} requests a minute", wait)
            self._bucket = bucket.taken()
        self.running += 1

    def leave(self) -> None:
        self.running -= 1

    def charge(self, allowance: Allowance, tokens: int, cost: float) -> None:
        if (budget := allowance.budget) is not None:
            self._spent = self._spent.at(self._clock(), budget.period).plus(tokens, cost)

    def budget(self, allowance: Allowance, answers: int = 1) -> Budget:
        """The budget of each of ``answers`` concurrent answers: an equal part of what is left."""
        if allowance.budget is None:
            return Budget()
        spent = self._spent.at(self._clock(), allowance.budget.period)
        rest = left(allowance.budget, spent)
        return Budget(
            tokens=None if rest.tokens is None else max(rest.tokens // answers, 1),
            cost=None if rest.cost is None else rest.cost / answers,
        )
