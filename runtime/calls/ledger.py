"""What one request may spend and has spent."""

from __future__ import annotations

import time
from collections.abc import Iterable

from runtime.call_context import CallContext
from runtime.errors import BudgetSpent
from runtime.observability.recorder import Report
from runtime.types.events import Checkpoint, MemberUsage
from runtime.types.query import Budget


class Ledger:
    """Shared by all members of a session."""

    def __init__(
        self,
        call_context: CallContext,
        budget: Budget,
        report: Report,
        names: Iterable[str],
        past: Checkpoint,
        left: Budget | None = None,
    ) -> None:
        self.call_context = call_context
        """On which calls are made."""
        self.budget = budget
        self.left_to_spend = left or Budget()
        """Tokens and cost from ``before`` on."""
        self.before = past.before
        self.begun = past.step > 0
        """Whether any text was accepted yet."""
        self.indispensable = False
        """Whether the quorum needs all members who are left."""
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
        rest, before = self.left_to_spend, self.before
        used -= before.prompt_tokens + before.completion_tokens
        if rest.tokens is not None and used >= rest.tokens:
            raise BudgetSpent("tokens")
        if rest.cost is not None and 0 < spent.cost - before.cost >= rest.cost:
            raise BudgetSpent("cost")

    def book(self, member: str, usage: MemberUsage) -> None:
        """Adds what a call took."""
        self.usage[member] = self.usage[member].plus(usage)
        self._report.booked(member, usage)

    def cancelled(self, member: str) -> None:
        """A call was given up before its reply."""
        self._report.cancelled(member)

    @property
    def wait_for_replica(self) -> bool:
        """Whether calls wait for members that are away. What has not begun does not wait: it would
        keep others from being served."""
        return self.indispensable and self.working

    @property
    def working(self) -> bool:
        """Whether members have done anything for it yet."""
        spent = self.spent()
        return spent.prompt_tokens + spent.completion_tokens > 0

    def spent(self) -> MemberUsage:
        """All members together."""
        return total(self.usage.values())


def total(usages: Iterable[MemberUsage]) -> MemberUsage:
    """The sum."""
    gather_or_cancel = MemberUsage()
    for usage in usages:
        gather_or_cancel = gather_or_cancel.plus(usage)
    return gather_or_cancel
