"""CBS: Collaborative Beam Search (EMNLP 2025, main.574): at each step members sample after every
beam, and the mean perplexity over all members selects; no reward model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from policies.base import Need
from policies.process.base import Line
from policies.process.beam_search import Beam, BeamConfig, BeamSearch, best
from policies.process.steps import Step, likelihoods, write
from runtime.concurrency import gather_or_cancel
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import perplexity


class CBSConfig(BeamConfig):
    type: Literal["cbs"] = "cbs"
    samples: int = Field(8, ge=1)
    """Steps sampled after each beam, over all members."""
    tau: float = Field(0.1, gt=0)
    """Temperature of the quotas: low values give more samples to
    members whose steps were kept."""
    temperature: float = Field(0.7, ge=0)
    """Of the samples."""
    top_p: float = Field(1.0, gt=0, le=1)


class CBS(BeamSearch[CBSConfig]):
    """Beam search scored by the mean perplexity of all members.

    After each beam the members sample ``samples`` steps, divided by quotas that begin equal; equal
    steps are one candidate with all its writers. A step's score is the mean over all members of
    minus its perplexity, a chain's the mean of its steps' scores; the best ``beams`` chains are
    kept. Scores that agree to six significant digits are equal; then chains are compared line by
    line: the author who comes first in ``members`` wins, then the lesser text. The next quotas are
    the softmax of the number of kept steps that each member wrote, over ``tau``, rounded by largest
    remainders.

    Implemented from secondary descriptions: beams 4, samples 8 and tau 0.1 are as reported there,
    the temperature is our choice. Scores are means so that chains of different lengths compare.

    Cost of a round: one call for each sample, one scoring call for each candidate to each member.
    """

    paper: ClassVar[str] = ""
    title: ClassVar[str] = "Collaborative beam search"
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"), Need("score"))

    async def extend(self, session: Session, beams: Sequence[Beam]) -> list[Beam]:
        config, state = self.config, session.state
        stored = state.get("quotas", {})
        quotas = {name: stored.get(name, 0) for name in session.live}
        if not any(quotas.values()):
            quotas = apportion(dict.fromkeys(session.live, 1.0), config.samples)
        depth = int(state["depth"])

        async def samples(member: Member) -> list[list[Step]]:
            return await gather_or_cancel(
                *(
                    self._samples(session, member, beam, quotas[member.name], (depth, place))
                    for place, beam in enumerate(beams)
                )
            )

        written = await session.each(samples, [name for name, count in quotas.items() if count])
        chains: dict[tuple[int, str, bool], tuple[Step, list[str]]] = {}
        for name in session.names:  # of equal steps the first member's
            for place, steps in enumerate(written.get(name, ())):
                for step in steps:
                    _, writers = chains.setdefault((place, step.text, step.final), (step, []))
                    writers.append(name)
        keys = list(chains)
        scores = await gather_or_cancel(
            *(self._score(session, beams[key[0]], chains[key][0]) for key in keys)
        )
        longer: list[Beam] = []
        writers_of: dict[tuple[str, bool], list[str]] = {}
        for key, score in zip(keys, scores, strict=True):
            if score is None:
                continue
            step, writers = chains[key]
            before = beams[key[0]]
            lines = (*before.lines, Line(step.text, step.author, score, step.final))
            mean = math.fsum(line.value for line in lines) / len(lines)
            longer.append(Beam(lines, mean, step.finished))
            writers_of[longer[-1].text, step.final] = writers
        finished = [b for b in map(Beam.load, state["beams"]) if b.finished]
        kept = best([*finished, *longer], config.beams, session.names)
        counts = Counter(
            name
            for beam in kept
            if beam in longer
            for name in writers_of[beam.text, beam.lines[-1].final]
        )
        state["quotas"] = next_quotas(
            {n: counts[n] for n in session.live}, config.tau, config.samples
        )
        return longer

    async def _samples(
        self, session: Session, member: Member, beam: Beam, count: int, at: tuple[int, int]
    ) -> list[Step]:
        config = self.config

        async def one(number: int) -> Step | None:
            return await write(
                session,
                member,
                beam.text,
                config,
                temperature=config.temperature,
                top_p=config.top_p,
                sample=(*at, number),
            )

        steps = await gather_or_cancel(*(one(number) for number in range(count)))
        return [step for step in steps if step is not None]

    async def _score(self, session: Session, beam: Beam, step: Step) -> float | None:
        """The mean of all members' -PPL; ``None`` when no window holds the text."""
        scored = await likelihoods(session, beam.text, step)
        if not scored:
            return None
        return -math.fsum(map(perplexity, scored.values())) / len(scored)


def next_quotas(kept: Mapping[str, int], tau: float, total: int) -> dict[str, int]:
    """The samples of each member, ``total`` in all: softmax of its kept steps over ``tau``."""
    top = max(kept.values())
    return apportion({n: math.exp((count - top) / tau) for n, count in kept.items()}, total)


def apportion(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """``total`` divided by weight into integers by largest remainders; ties go to the first."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: math.floor(share) for name, share in exact.items()}
    order = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
