"""The loop that span methods share; each method fills in ``propose`` and ``select``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from policies.base import C, Policy
from runtime.session import Candidate, Draft, Session
from runtime.types import Span

Judgements: TypeAlias = Mapping[str, Mapping[int, tuple[float, ...]]]
"""judge -> candidate index -> logprobs of the candidate in the judge's own tokens."""


@dataclass(frozen=True, slots=True)
class Round:
    """The candidates of one round, each text once."""

    candidates: tuple[Draft, ...]
    """The first author's draft stands for all that wrote the same text."""
    own: Mapping[str, tuple[int, tuple[float, ...]]]
    """author -> (its candidate's index, its own logprobs)"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The choice of one round."""

    winner: Draft
    scores: Mapping[str, float] = field(default_factory=dict)
    """Author -> value of its candidate; in what direction is the method's."""
    weights: Mapping[str, float] | None = None


def distinct(drafts: Mapping[str, Draft]) -> Round:
    """Merges equal texts; drafts without text are left out unless they end the answer."""
    useful = {n: d for n, d in drafts.items() if d.text or d.final} or dict(drafts)
    candidates: list[Draft] = []
    own: dict[str, tuple[int, tuple[float, ...]]] = {}
    places: dict[tuple[str, bool], int] = {}
    for name, draft in useful.items():
        key = (draft.text, draft.final)
        if key not in places:
            places[key] = len(candidates)
            candidates.append(draft)
        own[name] = (places[key], draft.logprobs)
    return Round(tuple(candidates), own)


async def cross_score(session: Session, judges: Sequence[str], round_: Round) -> Judgements:
    """Every judge's logprobs of every candidate.

    A member never re-scores what it wrote: it knows those logprobs. Judges that fail are dropped
    by the session and missing here.
    """
    candidates = round_.candidates
    foreign = {
        judge: [
            i for i in range(len(candidates)) if judge not in round_.own or round_.own[judge][0] != i
        ]
        for judge in judges
    }
    asked = [judge for judge in judges if foreign[judge]]
    replies = await session.each(
        lambda member: member.score(
            [Candidate(candidates[i].text, candidates[i].final) for i in foreign[member.name]]
        ),
        asked,
    )
    table: dict[str, dict[int, tuple[float, ...]]] = {}
    for judge in judges:
        if judge in asked and judge not in replies:
            continue
        row = dict(zip(foreign[judge], replies.get(judge, ()), strict=True))
        if judge in round_.own:
            index, logprobs = round_.own[judge]
            row[index] = logprobs
        table[judge] = row
    return table


def by_author(round_: Round, values: Sequence[float]) -> dict[str, float]:
    """Candidate values under their authors' names."""
    return {author: values[index] for author, (index, _) in round_.own.items()}


class SpanPolicy(Policy[C]):
    """propose -> cross-score -> select -> commit, until the winning span ends the answer.

    Cost of a round: one drafting call and one scoring call to each active member; no scoring call
    when all of them wrote the same text.
    """

    level: ClassVar[str] = "span"

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        while session.ending is None:
            drafts = await self.propose(session)
            if not drafts:  # every active member failed; those that are left take over
                continue
            round_ = distinct(drafts)
            judges = self.active(session)
            judged: Judgements = {}
            if len(round_.candidates) > 1:
                judged = await cross_score(session, judges, round_)
            verdict = self.select(session, round_, judged)
            yield session.commit(verdict.winner, verdict.scores, verdict.weights)

    def active(self, session: Session) -> list[str]:
        """Members that take part in this round, in the ensemble's order."""
        return list(session.live)

    @abstractmethod
    async def propose(self, session: Session) -> Mapping[str, Draft]:
        """One candidate from each active member."""

    @abstractmethod
    def select(self, session: Session, round_: Round, judged: Judgements) -> Verdict:
        """Picks the winner; ``judged`` is empty when there is one candidate only."""
