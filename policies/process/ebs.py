"""Ensemble beam search, a baseline of LE-MCTS (arXiv 2412.15797): at each step every member
continues every beam, and the reward model selects the best chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from policies.process.base import Line
from policies.process.beam_search import Beam, BeamConfig, BeamSearch
from policies.process.config import JudgedConfig
from policies.process.steps import Step, value_of, write
from runtime.concurrency import gather_or_cancel
from runtime.session.member import Member
from runtime.session.session import Session


class EBSConfig(BeamConfig, JudgedConfig):
    type: Literal["ebs"] = "ebs"


class EBS(BeamSearch[EBSConfig]):
    """Beam search over the steps of all members.

    Each round every member writes one greedy step after every beam, all at the same time; equal
    steps after one beam are one candidate. The value of a chain is the reward of its newest step;
    the best ``beams`` chains are kept, finished ones among them. Values that agree to six
    significant digits are equal; then chains are compared line by line: the author who comes first
    in ``members`` wins, then the lesser text.

    The paper names this baseline without describing it.

    Cost of a round: one call for each beam and member, one to the reward model for each candidate.
    """

    paper: ClassVar[str] = "2412.15797"
    title: ClassVar[str] = "Ensemble beam search"

    async def extend(self, session: Session, beams: Sequence[Beam]) -> list[Beam]:
        async def steps(member: Member) -> list[Step | None]:
            return await gather_or_cancel(
                *(write(session, member, beam.text, self.config) for beam in beams)
            )

        written = await session.each(steps)
        chains: dict[tuple[int, str, bool], Step] = {}
        for name in session.names:  # of equal steps the first member's
            for place, step in enumerate(written.get(name, ())):
                if step is not None:
                    chains.setdefault((place, step.text, step.final), step)
        candidates = [(beams[place], step) for (place, _, _), step in chains.items()]
        values = await gather_or_cancel(
            *(
                value_of(session, [line.text for line in beam.lines], step)
                for beam, step in candidates
            )
        )
        return [
            Beam(
                (*beam.lines, Line(step.text, step.author, value, step.final)), value, step.finished
            )
            for (beam, step), value in zip(candidates, values, strict=True)
            if value is not None
        ]
