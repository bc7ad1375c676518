"""Beam search over chains of steps; its state for one request."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field

from policies.process.base import Line, ProcessPolicy, SearchResult, content_order, joined
from policies.process.config import ProcessConfig
from policies.process.ranking import ranked
from runtime.errors import BudgetSpent
from runtime.session.session import Session
from runtime.types.spans import Progress

B = TypeVar("B", bound="BeamConfig")


class BeamConfig(ProcessConfig):
    beams: int = Field(4, ge=1)
    """Chains kept at each depth."""


@dataclass(frozen=True, slots=True)
class Beam:
    """A chain and its score, whose scale is the method's."""

    lines: tuple[Line, ...] = ()
    score: float = 0.0
    finished: bool = False

    @property
    def text(self) -> str:
        return joined(self.lines)

    def dump(self) -> dict[str, Any]:
        lines = [[line.text, line.author, line.value, line.final] for line in self.lines]
        return {"lines": lines, "score": self.score, "finished": self.finished}

    @classmethod
    def load(cls, values: dict[str, Any]) -> Beam:
        lines = tuple(Line(*line) for line in values["lines"])
        return cls(lines, values["score"], values["finished"])


class BeamSearch(ProcessPolicy[B]):
    """At each depth all beams are extended and the best chains kept, finished ones among them. The
    search ends when all kept chains are finished."""

    @abstractmethod
    async def extend(self, session: Session, beams: Sequence[Beam]) -> list[Beam]:
        """All chains one step longer than one of ``beams``, which are unfinished; each text once.
        Further state of the method goes into ``session.state``."""

    async def search(self, session: Session) -> AsyncGenerator[Progress | SearchResult, None]:
        state = session.state
        state.setdefault("beams", [Beam().dump()])
        state.setdefault("depth", 0)
        stopped_by = None
        while state["depth"] < self.config.max_steps:
            beams = [Beam.load(values) for values in state["beams"]]
            open_beams = [beam for beam in beams if not beam.finished]
            if not open_beams:
                break
            try:
                longer = await self.extend(session, open_beams)
            except BudgetSpent as spent:
                stopped_by = f"budget_{spent.which}"
                break
            pool = [beam for beam in beams if beam.finished] + longer
            if not longer:  # no member can continue
                break
            state["beams"] = [beam.dump() for beam in best(pool, self.config.beams, session.names)]
            state["depth"] += 1
            ends = sum(values["finished"] for values in state["beams"])
            yield Progress(state["depth"], self.config.max_steps, {"answers": float(ends)})
        beams = [Beam.load(values) for values in state["beams"]]
        ends = [beam for beam in beams if beam.finished]
        [chosen] = best(ends or beams, 1, session.names)
        yield SearchResult(chosen.lines, chosen.finished, stopped_by)


def best(beams: Sequence[Beam], count: int, members: Sequence[str]) -> list[Beam]:
    """The ``count`` with the highest scores, best first. Scores that agree to six significant
    digits are equal; then chains are compared line by line: the author who comes first in
    ``members`` wins, then the lesser text."""
    return ranked(beams, lambda beam: beam.score, lambda beam: content_order(beam.lines, members))[
        :count
    ]
