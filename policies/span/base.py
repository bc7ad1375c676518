"""The loop of span methods; each implements ``sampling``, ``trim`` and ``select``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, TypeVar

from policies.base import Need, Policy
from runtime.concurrency import gather_or_cancel
from runtime.config.ensembles import PolicyConfig
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Candidate, Draft
from runtime.types.sampling import Sampling
from runtime.types.spans import Span

S = TypeVar("S", bound="SpanConfig")

Judgements: TypeAlias = dict[str, dict[int, tuple[float, ...]]]
"""judge -> candidate index -> logprobs of the candidate in the judge's own tokens."""


class SpanConfig(PolicyConfig):
    speculate: bool = False
    """While a round is scored, every member also drafts after the candidate whose author is most
    confident, in the request that scores it. The text stays the same. A right guess saves a message
    and a pass, a wrong one costs a draft: useful where messages are slow and members have idle
    compute."""


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
    """author -> value of its candidate; whether higher is better depends on the method"""
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


async def cross_score(
    session: Session, judges: Sequence[str], round_: Round, ahead: Ahead | None = None
) -> Judgements:
    """Every judge's logprobs of every candidate.

    A member's own candidate keeps the logprobs it was written with. Judges that fail are dropped by
    the session and missing here. With ``ahead`` each judge also drafts after the guessed winner.
    """
    candidates = round_.candidates

    async def judge(member: Member) -> dict[int, tuple[float, ...]]:
        index, logprobs = round_.own.get(member.name, (None, ()))
        row = {} if index is None else {index: logprobs}
        foreign = [i for i in range(len(candidates)) if i != index]
        work: list[Awaitable[None]] = []

        async def score(indices: list[int]) -> None:
            texts = [Candidate(candidates[i].text, candidates[i].final) for i in indices]
            row.update(zip(indices, await member.score(texts), strict=True))

        async def draft_on(ahead: Ahead) -> None:
            draft = await ahead.draft(session, member, judge=ahead.guess in foreign)
            if ahead.guess in foreign:
                row[ahead.guess] = draft.before

        if ahead is not None:
            work.append(draft_on(ahead))
        indices = [i for i in foreign if ahead is None or i != ahead.guess]
        if indices:
            work.append(score(indices))
        await gather_or_cancel(*work)
        return row

    return await session.each(judge, judges)


@dataclass
class Ahead:
    """Drafts written before the verdict, after the candidate that is expected to win."""

    guess: int
    text: str
    sampling: Callable[[Session, Member], Sampling]
    drafts: dict[str, Draft] = field(default_factory=dict)

    async def draft(self, session: Session, member: Member, *, judge: bool) -> Draft:
        sampling = self.sampling(session, member)
        draft = await member.draft(sampling, after=self.text, judge=judge)
        self.drafts[member.name] = draft
        return draft


def likely_winner(round_: Round) -> int | None:
    """The candidate of the highest mean logprob by its author; ``None`` when it ends the answer."""
    means = [sum(c.logprobs) / max(len(c.logprobs), 1) for c in round_.candidates]
    best = max(range(len(means)), key=means.__getitem__)
    return None if round_.candidates[best].final else best


def by_author(round_: Round, values: Sequence[float]) -> dict[str, float]:
    """Candidate values under their authors' names."""
    return {author: values[index] for author, (index, _) in round_.own.items()}


class SpanPolicy(Policy[S]):
    """propose -> cross-score -> select -> commit, until the winning span ends the answer.

    Methods define how spans are drafted (``sampling``), where a draft ends (``trim``), and which
    candidate wins (``select``).

    Cost of a round: one drafting call and one scoring call to each active member; no scoring call
    when all of them wrote the same text.
    """

    level: ClassVar[str] = "span"
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"), Need("score"))

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        ready: dict[str, Draft] = {}
        while session.ending is None:
            judges = self.active(session)
            drafts = {name: ready[name] for name in judges if name in ready}
            if not drafts:
                drafts = await session.each(
                    lambda member: member.draft(self.sampling(session, member)), judges
                )
            if not drafts:  # every active member failed; the remaining ones continue
                continue
            round_ = distinct({n: self.trim(session, d) for n, d in drafts.items()})
            judges = [name for name in judges if name in session.live]
            ahead, judged = self._ahead(round_), Judgements()
            if len(round_.candidates) > 1:
                judged = await cross_score(session, judges, round_, ahead)
            verdict = self.select(session, round_, judged)
            guessed = ahead is not None and verdict.winner is round_.candidates[ahead.guess]
            ready = ahead.drafts if ahead is not None and guessed else {}
            yield session.commit(verdict.winner, verdict.scores, verdict.weights)

    def _ahead(self, round_: Round) -> Ahead | None:
        guess = likely_winner(round_) if self.config.speculate else None
        if guess is None:
            return None
        return Ahead(guess, round_.candidates[guess].text, self.sampling)

    def active(self, session: Session) -> list[str]:
        """Members that take part in this round, in the ensemble's order."""
        return list(session.live)

    @abstractmethod
    def sampling(self, session: Session, member: Member) -> Sampling:
        """How a member drafts its candidate."""

    @abstractmethod
    def trim(self, session: Session, draft: Draft) -> Draft:
        """The candidate that a draft holds."""

    @abstractmethod
    def select(self, session: Session, round_: Round, judged: Judgements) -> Verdict:
        """Picks the winner; ``judged`` is empty when there is one candidate only."""
