"""SweetSpan: "Hit the Sweet Spot! Span-Level Ensemble for Large Language Models" (arXiv 2409.18583)

Each round: every member continues the shared text greedily by a span of a fixed number of words;
every member computes the perplexity of every span; scores that look unfaithful are filtered out;
the span with the lowest mean perplexity is appended for all.

Cost per round and member: one drafting call, one scoring call for all foreign spans.

The paper names no code and its text leaves these open; our choices:
- the span is 4 words (the paper's example), a word being a run of non-white-space; the white space
  after it belongs to the next span;
- the filter works on one candidate's scores: if the highest perplexity is more than
  ``outlier_ratio`` times the lowest, both are dropped; if that leaves none, only the highest is;
- the author's own score counts like the others; ties go to the member named first;
- a span that ends in its author's EOS is judged together with each judge's own EOS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from policies.span.base import Judgements, Round, SpanConfig, SpanPolicy, Verdict, by_author
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Draft, perplexity
from runtime.text.words import cut_words
from runtime.types.sampling import Sampling


class SweetSpanConfig(SpanConfig):
    type: Literal["sweetspan"] = "sweetspan"
    span_words: int = Field(4, ge=1)
    """L: words in a span."""
    outlier_ratio: float = Field(10.0, gt=1)
    """λ: one candidate's scores further apart than this lose their extremes."""
    max_span_tokens: int = Field(48, ge=2)
    """Bound on a draft where no white space comes."""
    temperature: float = Field(0.0, ge=0)


def faithful(perplexities: Sequence[float], ratio: float) -> list[float]:
    """One candidate's perplexities without the outliers."""
    scores = sorted(perplexities)
    if scores[-1] <= ratio * scores[0]:
        return scores
    return scores[1:-1] or scores[:-1]


class SweetSpan(SpanPolicy[SweetSpanConfig]):
    """Word spans, mutual perplexity, outlier filter."""

    paper: ClassVar[str] = "2409.18583"
    title: ClassVar[str] = "SweetSpan"

    def sampling(self, session: Session, member: Member) -> Sampling:
        config = self.config
        return session.sampling(
            member,
            config.max_span_tokens,
            temperature=config.temperature,
            words=config.span_words,
        )

    def trim(self, session: Session, draft: Draft) -> Draft:
        return whole_words(draft, self.config.span_words)

    def select(self, session: Session, round_: Round, judged: Judgements) -> Verdict:
        if not judged:
            return Verdict(round_.candidates[0])
        values = []
        for index in range(len(round_.candidates)):
            scores = [perplexity(row[index]) for row in judged.values()]
            included = faithful(scores, self.config.outlier_ratio)
            values.append(sum(included) / len(included))
        best = min(range(len(values)), key=values.__getitem__)
        return Verdict(round_.candidates[best], by_author(round_, values))


def whole_words(draft: Draft, words: int) -> Draft:
    """The draft up to the end of its last wanted word."""
    return draft.cut(len(cut_words(draft.text, words)))
