"""Cool-Fusion: "Fuse Large Language Models without Training" (arXiv 2407.19807)

Each round: every member continues the shared text greedily by the shortest segment that ends where
a word ends for ALL members' tokenizers (aligned; ``aligned: false`` uses the author's tokenizer
only); every member computes the perplexity of every segment; the lowest mean wins and is appended
for all. Cool+R (``rerank``): each member also writes its whole answer alone, and of these and the
fused one the text with the lowest mean perplexity is given.

Cost per round and member: one drafting call of a word, one scoring call for all foreign segments;
with ``rerank`` one whole answer and one scoring call more. A reranked answer cannot stream: it
appears when all texts are complete.

Deviations: where a word ends is read off each tokenizer's own pre-tokenisation of the text with one
token of look-ahead, instead of growing the segment until decoding is invertible; tokenisation in
context replaces the paper's re-encoding of the previous k = 4 words, with the same result. A
segment that ends in its author's EOS is judged together with each judge's own EOS.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from policies.span.base import (
    Judgements,
    Round,
    SpanConfig,
    SpanPolicy,
    Verdict,
    by_author,
    cross_score,
    distinct,
)
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Draft, perplexity
from runtime.types.sampling import Sampling
from runtime.types.spans import Span


class CoolFusionConfig(SpanConfig):
    type: Literal["cool-fusion"] = "cool-fusion"
    aligned: bool = True
    """Segments end at word borders of all members; false: of their author."""
    rerank: bool = False
    """Cool+R."""
    max_segment_tokens: int = Field(24, ge=2)
    """Bound on a draft where no common word border comes."""
    temperature: float = Field(0.0, ge=0)


def first_common_end(ends: Iterable[Iterable[int]], start: int, length: int) -> int | None:
    """The first offset in (start, length) at which a word ends for all tokenizers.

    The end of the text itself does not count, since the word may continue.
    """
    common = set.intersection(*(set(own) for own in ends))
    return min((end for end in common if start < end < length), default=None)


class CoolFusion(SpanPolicy[CoolFusionConfig]):
    """Aligned word segments by mean perplexity; Cool+R reranks whole answers."""

    paper: ClassVar[str] = "2407.19807"
    title: ClassVar[str] = "Cool-Fusion"

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        fused = super().answer(session)
        if not self.config.rerank:
            async for span in fused:
                yield span
            return
        if "chosen" not in session.state:
            alone = await session.each(lambda member: member.draft(self._whole(session, member)))
            spans = [span async for span in fused]
            if not session.text:  # ended by a stop string before it began
                yield spans[-1]
                return
            with session.rewound():
                best = await self._best(session, spans, alone)
            session.state["chosen"] = [[part.author, part.text, part.final] for part in best]
        while session.ending is None and session.state["chosen"]:
            author, text, final = session.state["chosen"][0]
            session.state["chosen"] = session.state["chosen"][1:]
            yield session.commit(Draft(author, text, (0.0,), final))

    def sampling(self, session: Session, member: Member) -> Sampling:
        config = self.config
        return session.sampling(
            member, config.max_segment_tokens, temperature=config.temperature, words=1
        )

    def trim(self, session: Session, draft: Draft) -> Draft:
        if self.config.aligned or draft.author not in session.live:
            judges = list(session.live.values())
        else:
            judges = [session.live[draft.author]]
        tail = _last_words(session.text)
        text = tail + draft.text
        ends = [member.connection.tokenizer.word_ends(text) for member in judges]
        end = first_common_end(ends, len(tail), len(text))
        return draft if end is None else draft.cut(end - len(tail))

    def select(self, session: Session, round_: Round, judged: Judgements) -> Verdict:
        if not judged:
            return Verdict(round_.candidates[0])
        values = mean_perplexities(round_, judged)
        best = min(range(len(values)), key=values.__getitem__)
        return Verdict(round_.candidates[best], by_author(round_, values))

    def _whole(self, session: Session, member: Member) -> Sampling:
        return session.sampling(
            member, max(session.tokens_left, 1), temperature=self.config.temperature
        )

    async def _best(
        self, session: Session, spans: list[Span], alone: Mapping[str, Draft]
    ) -> list[Draft]:
        """The drafts to commit: the fused spans again, or one member's own answer."""
        parts = [Draft(author=s.author, text=s.text, logprobs=(0.0,), final=s.final) for s in spans]
        whole = Draft(
            author="",
            text="".join(part.text for part in parts),
            logprobs=(0.0,),
            final=bool(parts) and parts[-1].final,
        )
        rivals = distinct(alone)
        known = {key: value for key, value in rivals.own.items() if key in session.live}
        round_ = Round((*rivals.candidates, whole), known)
        judged = await cross_score(session, list(session.live), round_)
        values = mean_perplexities(round_, judged)
        best = min(range(len(values)), key=lambda i: (values[i], -i))
        if best == len(values) - 1:
            return parts
        return [round_.candidates[best]]


def mean_perplexities(round_: Round, judged: Judgements) -> list[float]:
    """Of each candidate, over the judges."""
    return [
        sum(perplexity(row[index]) for row in judged.values()) / len(judged)
        for index in range(len(round_.candidates))
    ]


def _last_words(text: str, words: int = 4) -> str:
    """Enough of the text's end to see how a tokenizer splits what follows."""
    at = len(text)
    for _ in range(words):
        at = max(text.rfind(" ", 0, at), text.rfind("\n", 0, at), 0)
    return text[at:]
