"""Who drafts, and how many tokens: learnt from what rounds bring, whatever the request.

Neither changes a text, only how soon it is written. A choice is a member and a length; what is
measured of it is tokens of the answer per second, which holds everything that matters: how fast
members draft and judge, how much of a draft the ensemble keeps, and how busy the machines are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

AGAIN: Final = 24
"""Every so many rounds a choice that looks worse is tried again: what was learnt grows old."""
FORGET: Final = 0.9
"""Share of its weight that a round keeps with each newer one."""


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
        self._rates: dict[tuple[str, int], Rate] = {}
        self._rounds = 0

    def choose(self, names: Sequence[str], limit: int) -> tuple[str, int]:
        """Who drafts and at most how many tokens: each choice once, then the fastest, and now and
        then the one that was not tried for longest."""
        self._rounds += 1
        arms = [(name, length) for length in lengths(limit) for name in names]
        rates = {arm: self._rates.setdefault(arm, Rate()) for arm in arms}
        stale = self._rounds % AGAIN == 0
        arm = min(arms, key=lambda a: rates[a].last if stale else -rates[a].speed)
        rates[arm].last = self._rounds
        return arm

    def note(self, name: str, length: int, tokens: int, seconds: float) -> None:
        """What a round of this choice brought."""
        self._rates.setdefault((name, length), Rate()).add(tokens, seconds)

    def speeds(self) -> dict[str, float]:
        """What has been learnt, for people: tokens a second of each choice that was tried."""
        return {
            f"{name} x{length}": rate.speed
            for (name, length), rate in self._rates.items()
            if rate.seconds
        }


def lengths(limit: int) -> list[int]:
    """Draft lengths worth telling apart, the likeliest first; none above ``limit``."""
    known = [length for length in (4, 8, 2, 16, 32) if length <= limit]
    return known if limit in known else [*known, limit]
