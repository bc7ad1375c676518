"""The base of span methods that draft segments of a fixed number of tokens (SpecFuse, SpecEM)."""

from __future__ import annotations

from typing import TypeVar

from pydantic import Field

from policies.span.base import Judgements, Round, SpanConfig, SpanPolicy
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Draft, mean_probability
from runtime.text.words import cut_partial_word
from runtime.types.sampling import Sampling


class SegmentConfig(SpanConfig):
    segment_tokens: int = Field(10, ge=1)
    """Tokens of a segment, in its author's tokenizer."""
    temperature: float = Field(0.6, ge=0)
    """0 drafts greedily."""
    top_p: float = Field(0.9, gt=0, le=1)


G = TypeVar("G", bound=SegmentConfig)


class SegmentPolicy(SpanPolicy[G]):
    """What SpecFuse and SpecEM share: how segments are drafted and valued."""

    def sampling(self, session: Session, member: Member) -> Sampling:
        config = self.config
        return session.sampling(
            member, config.segment_tokens, temperature=config.temperature, top_p=config.top_p
        )

    def trim(self, session: Session, draft: Draft) -> Draft:
        return whole_segment(draft)


def whole_segment(draft: Draft) -> Draft:
    """The draft without a last word that its author may not have finished."""
    if draft.finish != "length":
        return draft
    return draft.cut(len(cut_partial_word(draft.text)))


def segment_scores(round_: Round, judged: Judgements) -> dict[str, list[float]]:
    """judge -> the mean token probability of each candidate."""
    return {
        judge: [mean_probability(row[index]) for index in range(len(round_.candidates))]
        for judge, row in judged.items()
    }
