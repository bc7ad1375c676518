"""Budget and usage of one request."""

from __future__ import annotations

import time
from collections.abc import Iterable

from runtime.call_context import CallContext
from runtime.errors import BudgetSpent
from runtime.observability.recorder import AnswerRecorder
from runtime.types.events import Checkpoint, MemberUsage
from runtime.types.query import Budget


class Ledger:
    """Shared by all members of a session."""

    def __init__(
        self,
        call_context: CallContext,
        budget: Budget,
        report: AnswerRecorder,
        names: Iterable[str],
        past: Checkpoint,
        left: Budget | None = None,
    ) -> None:
        self.call_context = call_context
        """Sent with every call."""
        self.budget = budget
        self.left_to_spend = left or Budget()
        """Tokens and cost that may be spent beyond ``before``."""
        self.before = past.before
        self.begun = past.step > 0
        """Whether any text was accepted."""
        self.indispensable = False
        """Whether the quorum needs every remaining member."""
        self.usage: dict[str, MemberUsage] = {
            name: past.usage.get(name, MemberUsage()) for name in names
        }
        self._report = report
        self._started = time.monotonic() - past.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds, including those before the checkpoint."""
        return time.monotonic() - self._started

    def left(self) -> float | None:
        """Seconds until the deadline; ``None`` without one."""
        seconds = self.budget.seconds
        return None if seconds is None else seconds - self.elapsed

    def check(self) -> None:
        """Raises ``BudgetSpent`` when no further call may be made."""
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
        """Adds the usage of a call."""
        self.usage[member] = self.usage[member].plus(usage)
        self._report.booked(member, usage)

    def cancelled(self, member: str) -> None:
        """Counts a call that was cancelled before its reply."""
        self._report.cancelled(member)

    @property
    def wait_for_replica(self) -> bool:
        """Whether calls wait for a replica of an unavailable member. A request without any tokens
        yet does not wait: it would hold up other requests."""
        return self.indispensable and self.working

    @property
    def working(self) -> bool:
        """Whether members have processed any tokens for the request."""
        spent = self.spent()
        return spent.prompt_tokens + spent.completion_tokens > 0

    def spent(self) -> MemberUsage:
        """Usage of all members together."""
        return total(self.usage.values())


def total(usages: Iterable[MemberUsage]) -> MemberUsage:
    """The sum of usages."""
    result = MemberUsage()
    for usage in usages:
        result = result.plus(usage)
    return result
