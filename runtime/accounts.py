"""What one request may spend and has spent."""

from __future__ import annotations

import time
from collections.abc import Iterable

from runtime.errors import BudgetSpent
from runtime.report import Report
from runtime.terms import Terms
from runtime.types import Budget, Checkpoint, MemberUsage


class Accounts:
    """Shared by all members of a session."""

    def __init__(
        self,
        terms: Terms,
        budget: Budget,
        report: Report,
        names: Iterable[str],
        past: Checkpoint,
    ) -> None:
        self.terms = terms
        """On which calls are made."""
        self.budget = budget
        self.begun = past.step > 0
        """Whether any text was accepted yet."""
        self.patient = False
        """Whether calls wait for members that are away, since the quorum needs all who are left."""
        self.usage: dict[str, MemberUsage] = {
            name: past.usage.get(name, MemberUsage()) for name in names
        }
        self._report = report
        self._started = time.monotonic() - past.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds, those before the checkpoint included."""
        return time.monotonic() - self._started

    def left(self) -> float | None:
        """Seconds until the deadline; ``None`` without one."""
        seconds = self.budget.seconds
        return None if seconds is None else seconds - self.elapsed

    def check(self) -> None:
        """Raises ``BudgetSpent`` when a call must not be made any more."""
        spent, limit = self.spent(), self.budget
        if limit.seconds is not None and self.elapsed >= limit.seconds:
            raise BudgetSpent("time")
        if limit.calls is not None and spent.calls >= limit.calls:
            raise BudgetSpent("calls")
        used = spent.prompt_tokens + spent.completion_tokens
        if limit.tokens is not None and used >= limit.tokens:
            raise BudgetSpent("tokens")
        if limit.cost is not None and 0 < spent.cost >= limit.cost:
            raise BudgetSpent("cost")

    def book(self, member: str, usage: MemberUsage) -> None:
        """Adds what a call took."""
        self.usage[member] = self.usage[member].plus(usage)
        self._report.booked(member, usage)

    def cancelled(self, member: str) -> None:
        """A call was given up before its reply."""
        self._report.cancelled(member)

    def spent(self) -> MemberUsage:
        """All members together."""
        total = MemberUsage()
        for usage in self.usage.values():
            total = total.plus(usage)
        return total
