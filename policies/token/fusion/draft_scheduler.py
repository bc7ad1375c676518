"""Who drafts, and how many tokens: learnt from what rounds bring, whatever the request.

None of it changes a text, only how soon it is written. A choice is a member, a length, and whether
it drafts on while the others judge; what is measured of it is tokens of the answer per second. That
holds everything that matters: how fast members draft and judge, how much of a draft the ensemble
keeps, whether members share a processor, and how busy it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

AGAIN: Final = 32
"""Every so many rounds a choice that looks worse is tried again: what was learnt grows old."""
HOPELESS: Final = 0.6
"""Below this share of the best speed it is not, nor are the other ways of its drafter tried."""
SHORT: Final = 4
"""Tokens of a short draft."""
FORGET: Final = 0.9
"""Share of its weight that a round keeps with each newer one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a round is drafted."""

    drafter: str
    length: int
    """Most tokens; 0: nobody drafts, and the drafter is only asked first where that matters."""
    on: bool = False
    """The drafter writes the next draft while the others judge this one: of use if all of it is
    kept, wasted otherwise."""


@dataclass
class Rate:
    """Tokens a second, the older rounds fading."""

    tokens: float = 0.0
    seconds: float = 0.0
    last: int = 0
    """The round in which it was tried last; 0: never."""

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds if self.seconds else float("inf")

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens = self.tokens * FORGET + tokens
        self.seconds = self.seconds * FORGET + max(seconds, 1e-6)


class Pace:
    """One ensemble's experience: a rate for every choice."""

    def __init__(self) -> None:
        self._rates: dict[Plan, Rate] = {}
        self._rounds = 0

    def choose(self, names: Sequence[str], limit: int) -> Plan:
        """Each choice once, if its drafter is any good, then the fastest, and now and then the one,
        of those near it, that was not tried for longest."""
        self._rounds += 1
        plans = [
            Plan(name, length, on)
            for length in lengths(limit)
            for on in (False, True)
            for name in names
        ]
        rates = {plan: self._rates.setdefault(plan, Rate()) for plan in plans}
        tried = [p for p in plans if rates[p].seconds]
        least = HOPELESS * max((rates[p].speed for p in tried), default=0.0)
        poor = {
            name
            for name in names
            if 0 < max((rates[p].speed for p in tried if p.drafter == name), default=0.0) < least
        }
        worth = [p for p in plans if p in tried or p.drafter not in poor]
        best = max(worth, key=lambda p: rates[p].speed)
        near = [p for p in worth if rates[p].speed >= HOPELESS * rates[best].speed]
        again = self._rounds % AGAIN == 0
        plan = min(near, key=lambda p: rates[p].last) if again else best
        rates[plan].last = self._rounds
        return plan

    def note(self, plan: Plan, tokens: int, seconds: float) -> None:
        """What a round of this choice brought."""
        self._rates.setdefault(plan, Rate()).add(tokens, seconds)

    def speeds(self) -> dict[str, float]:
        """What has been learnt, for people: tokens a second of each choice that was tried."""
        return {
            f"{plan.drafter} x{plan.length}{'+' if plan.on else ''}": rate.speed
            for plan, rate in self._rates.items()
            if rate.seconds
        }


def lengths(limit: int) -> list[int]:
    """Draft lengths worth telling apart; drafts end by themselves where their writer is unsure."""
    return [limit] if limit <= SHORT else [SHORT, limit]
