"""Who drafts, and how many tokens: learnt from what rounds take, whatever the request.

Neither changes a text, only how soon it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

TRIALS: Final = 2
"""Rounds that each member drafts before they are compared."""
AGAIN: Final = 64
"""After so many rounds the others are given another try."""
FORGET: Final = 0.9
"""Share of its weight that an observation keeps with each newer one."""
FIRST_DRAFT: Final = 4


@dataclass
class Line:
    """Seconds as a line over a number of tokens: least squares, old observations fading."""

    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        for name, value in (("n", 1.0), ("x", x), ("y", y), ("xx", x * x), ("xy", x * y)):
            setattr(self, name, getattr(self, name) * FORGET + value)

    def at(self, x: float) -> float:
        """A line through one point only is flat; slopes below 0 are noise."""
        spread = self.n * self.xx - self.x**2
        slope = max((self.n * self.xy - self.x * self.y) / spread, 0.0) if spread > 1e-6 else 0.0
        return max((self.y + slope * (self.n * x - self.x)) / self.n, 1e-6)


@dataclass
class Drafter:
    rounds: int = 0
    offered: float = 2.0
    """Drafted tokens that were looked at, the older ones fading; at first a guess."""
    kept: float = 1.5
    drafting: Line = field(default_factory=Line)
    judging: Line = field(default_factory=Line)

    @property
    def acceptance(self) -> float:
        """Share of the drafted tokens that the ensemble chooses too."""
        return min(self.kept / self.offered, 0.999)

    def speed(self, length: int) -> float:
        """Expected tokens a second: a draft counts up to its first token that is not kept, and that
        one is replaced."""
        tokens = (1 - self.acceptance**length) / (1 - self.acceptance)
        return tokens / (self.drafting.at(length) + self.judging.at(length))

    def best_length(self, limit: int) -> int:
        if not self.rounds:
            return min(FIRST_DRAFT, limit)
        return max(range(1, limit + 1), key=self.speed)


class Pace:
    """One ensemble's experience."""

    def __init__(self) -> None:
        self._drafters: dict[str, Drafter] = {}
        self._rounds = 0

    def drafter(self, names: Sequence[str], limit: int) -> str:
        """Who drafts next: each member in turn for a start, then the one that pays most."""
        known = {name: self._drafters.setdefault(name, Drafter()) for name in names}
        self._rounds += 1
        if self._rounds % AGAIN == 0:
            return min(names, key=lambda name: known[name].rounds)
        new = [name for name in names if known[name].rounds < TRIALS]
        if new:
            return new[0]
        return max(names, key=lambda name: known[name].speed(known[name].best_length(limit)))

    def length(self, name: str, limit: int) -> int:
        """How many tokens it drafts: as many as promise the most tokens a second."""
        return self._drafters.setdefault(name, Drafter()).best_length(limit)

    def note(self, name: str, *, drafted: int, kept: int, drafting: float, judging: float) -> None:
        """A round: of ``drafted`` tokens the first ``kept`` were right; seconds of both halves."""
        drafter = self._drafters.setdefault(name, Drafter())
        drafter.rounds += 1
        seen = min(kept + 1, drafted)
        drafter.offered = drafter.offered * FORGET + seen
        drafter.kept = drafter.kept * FORGET + kept
        drafter.drafting.add(drafted, drafting)
        drafter.judging.add(drafted, judging)
