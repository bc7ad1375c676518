"""SpecFuse: ensembling by next-segment prediction (arXiv 2412.07380, versions 1 and 2)

Each round: every active member continues the shared text by a segment of a fixed number of tokens
(inference); every active member computes the mean token probability of every segment (verify);
the segment with the highest mean over the members is appended for all. A member whose segments have
kept losing leaves for the rest of the answer (exit).

Cost per round and active member: one drafting call, one scoring call for all foreign segments.

Deviations and choices:
- a segment that ends inside a word is cut back to the end of the word before (as the authors' code
  does), since other tokenizers could not judge half a word;
- a segment that ends in its author's EOS is judged together with each judge's own EOS;
- the formula of the exit is not public. Ours: Q_i is the sum of member i's segment scores so far,
  u = softmax(Q), h = H(u) / ln n with n active members, p = softmax(Q / h), and i leaves when
  p_i < exit_fraction / n. Entropy tempers the softmax: while members look alike h stays near 1 and
  nobody leaves; once they differ h falls and the weaker ones leave quickly. The best never leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from policies.span.base import Judgements, Round, Verdict, by_author
from policies.span.segments import SegmentConfig, SegmentPolicy, segment_scores
from runtime.session.session import Session


class SpecFuseConfig(SegmentConfig):
    type: Literal["specfuse"] = "specfuse"
    exit_fraction: float = Field(0.5, ge=0, lt=1)
    """δ·n: a member leaves below this fraction of an equal share; 0 keeps all members."""


def softmax(values: Mapping[str, float], temperature: float = 1.0) -> dict[str, float]:
    top = max(values.values())
    raised = {name: math.exp((v - top) / temperature) for name, v in values.items()}
    total = sum(raised.values())
    return {name: v / total for name, v in raised.items()}


def leaving(quality: Mapping[str, float], fraction: float) -> list[str]:
    """Members whose cumulative quality is too low to stay."""
    n = len(quality)
    if n < 2 or fraction == 0:
        return []
    even = softmax(quality)
    entropy = -sum(p * math.log(p) for p in even.values() if p > 0)
    share = softmax(quality, max(entropy / math.log(n), 1e-6))
    best = max(quality, key=quality.__getitem__)
    return [name for name, p in share.items() if p < fraction / n and name != best]


class SpecFuse(SegmentPolicy[SpecFuseConfig]):
    """Fixed-length segments, mean token probability by all, model exit."""

    paper: ClassVar[str] = "2412.07380"
    title: ClassVar[str] = "SpecFuse"

    def active(self, session: Session) -> list[str]:
        gone = session.state.setdefault("exited", {})
        return [name for name in session.live if name not in gone] or list(session.live)

    def select(self, session: Session, round_: Round, judged: Judgements) -> Verdict:
        if not judged:
            return Verdict(round_.candidates[0])
        scores = segment_scores(round_, judged)
        values = [sum(column) / len(scores) for column in zip(*scores.values(), strict=True)]
        named = by_author(round_, values)
        self._exit(session, named)
        best = max(range(len(values)), key=values.__getitem__)
        return Verdict(round_.candidates[best], named)

    def _exit(self, session: Session, scores: Mapping[str, float]) -> None:
        quality = session.state.setdefault("quality", {})
        for name, score in scores.items():
            quality[name] = quality.get(name, 0.0) + score
        active = {n: quality[n] for n in self.active(session) if n in quality}
        for name in leaving(active, self.config.exit_fraction):
            session.state["exited"][name] = session.step
