"""SpecEM: SpecFuse's later form, with online feedback instead of exit (arXiv 2412.07380, v3 on)

Inference and verification as in SpecFuse, but each judge's normalised scores are weighted, and the
weights follow the Hedge rule: after round t member i gains the reward of its wins,

    eta_t = (learning_rate / 10) * sqrt(1 / K) / t
    wins_i = #{(j, k): j, k != i, score_j(i) >= score_j(k)}, at least 1
    reward_i = wins_i / (K - 1)^2
    w_i <- w_i * exp(eta_t * reward_i), then normalised; uniform at the start of every answer.

Cost per round and member: as SpecFuse.

Deviations: scores are mean token probabilities as the paper says (the authors' code averages raw
logits), normalised over the candidates; the authors' default switches feedback off, ours is on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from policies.span.base import Judgements, Round, Verdict, by_author
from policies.span.segments import SegmentConfig, SegmentPolicy, segment_scores
from runtime.session.session import Session


class SpecEMConfig(SegmentConfig):
    type: Literal["specem"] = "specem"
    learning_rate: float = Field(10.0, ge=0)
    """0 keeps the weights uniform."""


def rewards(own: Mapping[str, int], scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Each author's reward from how often the other judges prefer its candidate to another's."""
    names = list(own)
    if len(names) < 2:
        return {name: 0.0 for name in names}
    result = {}
    for name in names:
        wins = sum(
            row[own[name]] >= row[own[rival]]
            for judge, row in scores.items()
            if judge != name
            for rival in names
            if rival != name
        )
        result[name] = max(wins, 1) / (len(names) - 1) ** 2
    return result


def hedge(
    weights: Mapping[str, float], reward: Mapping[str, float], learning_rate: float, round_: int
) -> dict[str, float]:
    """Multiplicative update of round ``round_`` (from 1)."""
    eta = (learning_rate / 10) * math.sqrt(1 / max(len(weights), 1)) / round_
    raised = {name: w * math.exp(eta * reward.get(name, 0.0)) for name, w in weights.items()}
    total = sum(raised.values())
    return {name: w / total for name, w in raised.items()}


class SpecEM(SegmentPolicy[SpecEMConfig]):
    """Fixed-length segments, judges weighted by online feedback."""

    paper: ClassVar[str] = "2412.07380"
    title: ClassVar[str] = "SpecEM"

    def select(self, session: Session, round_: Round, judged: Judgements) -> Verdict:
        weights = self._weights(session)
        session.state["round"] = session.state.get("round", 0) + 1
        if not judged:
            return Verdict(round_.candidates[0], weights=weights)
        scores = segment_scores(round_, judged)
        total = sum(weights[judge] for judge in scores)
        values = [0.0] * len(round_.candidates)
        for judge, row in scores.items():
            share = weights[judge] / total / sum(row)
            for index, score in enumerate(row):
                values[index] += share * score
        own = {author: index for author, (index, _) in round_.own.items()}
        session.state["weights"] = hedge(
            weights, rewards(own, scores), self.config.learning_rate, session.state["round"]
        )
        best = max(range(len(values)), key=values.__getitem__)
        return Verdict(round_.candidates[best], by_author(round_, values), weights)

    def _weights(self, session: Session) -> dict[str, float]:
        """The weights of the live members, with sum 1."""
        stored = session.state.get("weights", {})
        even = 1 / len(session.live)
        weights = {name: stored.get(name, even) for name in session.live}
        total = sum(weights.values())
        return {name: w / total for name, w in weights.items()}
