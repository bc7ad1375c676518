"""Chooses the drafting member and the draft length from the measured speed of earlier rounds.

No choice changes a text, only its speed. A plan is a member, a length, and whether it drafts on
while the others score; its measure is accepted tokens per second. That covers how fast members
draft and score, how much of a draft is accepted, whether members share a processor, and the load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

RETRY_EVERY: Final = 32
"""After this many rounds a slower plan is tried again, since speeds change."""
RETRY_SHARE: Final = 0.6
"""Plans below this share of the best speed are not tried again, nor are others of their drafter."""
SHORT: Final = 4
"""Tokens of a short draft."""
DECAY: Final = 0.9
"""Factor on a round's weight for each newer round."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a round is drafted."""

    drafter: str
    length: int
    """Most tokens; 0: no draft, and ``drafter`` only sets whose distribution is requested first."""
    on: bool = False
    """The drafter writes the next draft while the others score this one: used if all of this one is
    accepted, wasted otherwise."""


@dataclass
class Rate:
    """Tokens per second, older rounds weighing less."""

    tokens: float = 0.0
    seconds: float = 0.0
    last: int = 0
    """Round of the last try; 0: none."""

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds if self.seconds else float("inf")

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens = self.tokens * DECAY + tokens
        self.seconds = self.seconds * DECAY + max(seconds, 1e-6)


class DraftScheduler:
    """One ensemble's measurements: a rate for every plan.

    ``clock``: seconds, monotonic; rounds are timed with it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._rates: dict[Plan, Rate] = {}
        self._rounds = 0

    def choose(self, names: Sequence[str], limit: int) -> Plan:
        """The plan of the next round: each plan once, unless its drafter is far slower, then the
        fastest; every ``RETRY_EVERY`` rounds that one of the nearly as fast whose last try is the
        oldest. ``names``: members that may draft; ``limit``: most tokens of a draft."""
        self._rounds += 1
        plans = [
            Plan(name, length, on)
            for length in lengths(limit)
            for on in (False, True)
            for name in names
        ]
        rates = {plan: self._rates.setdefault(plan, Rate()) for plan in plans}
        tried = [p for p in plans if rates[p].seconds]
        minimum = RETRY_SHARE * max((rates[p].speed for p in tried), default=0.0)
        slow = {
            name
            for name in names
            if 0 < max((rates[p].speed for p in tried if p.drafter == name), default=0.0) < minimum
        }
        usable = [p for p in plans if p in tried or p.drafter not in slow]
        best = max(usable, key=lambda p: rates[p].speed)
        near = [p for p in usable if rates[p].speed >= RETRY_SHARE * rates[best].speed]
        retry = self._rounds % RETRY_EVERY == 0
        plan = min(near, key=lambda p: rates[p].last) if retry else best
        rates[plan].last = self._rounds
        return plan

    def record(self, plan: Plan, tokens: int, seconds: float) -> None:
        """Adds a round: tokens accepted and seconds taken."""
        self._rates.setdefault(plan, Rate()).add(tokens, seconds)

    def speeds(self) -> dict[str, float]:
        """Tokens per second of each plan tried, for display."""
        return {
            f"{plan.drafter} x{plan.length}{'+' if plan.on else ''}": rate.speed
            for plan, rate in self._rates.items()
            if rate.seconds
        }


def lengths(limit: int) -> list[int]:
    """Draft lengths to try; a draft also ends where its writer is unsure."""
    return [limit] if limit <= SHORT else [SHORT, limit]
