"""The loop that token methods share: distributions -> fuse -> commit.

The plain loop (``draft: 0``) asks every member for its distribution after the text so far, fuses
them, takes one token and begins again: a barrier for each token. Drafted, one member writes a few
tokens ahead, with its distribution at each; the others tell theirs at all those places in one call;
then the method fuses place after place and takes the ensemble's own choice, until that is another
token than the drafted one. What is fused at a place depends on the text before it only, and a place
counts only as long as all tokens before it were right. So the text is the plain loop's, for greedy
choices and for drawn ones, whose noise is keyed by place and text (runtime/rng.py), as far as an
engine computes the same numbers for one token and for several.

A member that was not asked for a while catches up in its next call: every call carries the whole
context, of which the engine computes what its cache lacks.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from policies.base import Need, Policy
from policies.token.fusion.config import TokenConfig
from policies.token.fusion.draft_scheduler import Pace, Plan
from policies.token.fusion.drafting import Drafted, draft
from policies.token.fusion.request import Rows, TokenRequest, joined
from policies.token.fusion.rows import Fuser, Row
from policies.token.fusion.safe import stands
from policies.token.fusion.sampling import choose
from policies.token.fusion.teacher_forcing import score_text
from runtime.errors import BadRequest, BudgetSpent, ContextOverflow
from runtime.session.connection import Connection
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.pieces import Ahead
from runtime.types.spans import Span, TokenChoice
from runtime.vocab.union import END_KEY, NO_KEY, Union, union_of

T = TypeVar("T", bound=TokenConfig)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A draft that was written while the one before it was judged."""

    plan: Plan
    draft: Drafted


class TokenPolicy(Policy[T]):
    """A method says how rows are fused (``fuser``); the loop does the rest.

    Cost of a round: a drafting call to one member and one call to each other; a further call to
    those members of which the method needs the logprobs of more tokens.
    """

    level: ClassVar[str] = "token"
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"), Need("next_token"))
    tells_logprobs: ClassVar[bool] = True
    can_score: ClassVar[bool] = True

    def __init__(self, config: T) -> None:
        super().__init__(config)
        self._pace = Pace()

    @abstractmethod
    async def fuser(self, session: Session, union: Union, weights: Mapping[str, float]) -> Fuser:
        """The way to fuse for one request; ``weights`` are the configured ones."""

    async def warm(self, connections: Mapping[str, Connection]) -> None:
        await asyncio.to_thread(_union, list(connections.values()))

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        request = await self.request(session)
        ready: _Ready | None = None
        while session.ending is None:
            since = len(session.spans)
            try:
                ready = await self._round(request, ready)
            except (BudgetSpent, ContextOverflow):
                request.release()
                for span in joined(session, since):
                    yield span
                raise
            for span in joined(session, since):
                yield span

    async def request(self, session: Session) -> TokenRequest:
        """One request made ready: its vocabulary, its fuser, where its members stand."""
        connections = [member.connection for member in session.live.values()]
        union = await asyncio.to_thread(_union, connections)
        weights = {name: self.config.weights.get(name, 1.0) for name in session.live}
        fuser = await self.fuser(session, union, weights)
        return TokenRequest(session, self.config, union, fuser)

    async def score(self, session: Session) -> list[TokenChoice]:
        """The prompt's tokens as the reporting member reads them, under the fused distribution."""
        writer = self.config.vocabulary
        if writer is not None and writer != session.ids_of:
            raise BadRequest(
                f"texts are scored in the tokens of {session.ids_of!r}, but this ensemble writes "
                f"in those of {writer!r}; make that the reporting_member",
                "echo",
            )
        request = await self.request(session)
        return await score_text(self.judge, request)

    # -- one round ---------------------------------------------------------------------------

    async def _round(self, request: TokenRequest, ready: _Ready | None) -> _Ready | None:
        """Drafts, has the draft judged, takes what the ensemble chooses. ``ready`` is a draft that
        was written meanwhile; such a one for the next round is returned."""
        session = request.session
        plan = self._plan(request) if ready is None else ready.plan
        written: dict[str, Drafted] = {} if ready is None else {plan.drafter: ready.draft}
        started = time.monotonic()
        if plan.length and not written:
            written = await session.each(
                lambda member: draft(request, member, plan.length), [plan.drafter]
            )
            if not written:  # the drafter failed; the others go on
                return None
        drafted = written.get(plan.drafter, Drafted())
        rows: Rows = {place: {plan.drafter: row} for place, row in enumerate(drafted.rows)}
        following: list[Drafted] = []

        async def go_on(member: Member) -> None:
            following.append(await draft(request, member, plan.length, drafted))

        left = session.tokens_left - len(drafted.pieces)
        on = go_on if plan.on and drafted.after is not None and left > 0 else None
        rows = await self.judge(request, plan.drafter, drafted.pieces, rows, on=on)
        before = request.place
        kept = await self._take(request, plan.drafter, drafted.pieces, rows)
        request.counts["rounds"] += 1
        if drafted.pieces:
            request.counts["drafted"] += len(drafted.pieces)
            request.counts["kept"] += kept
            self._pace.note(plan, request.place - before, time.monotonic() - started)
        right = drafted.pieces and kept == len(drafted.pieces) and plan.drafter in session.live
        return _Ready(plan, following[0]) if right and following else None

    def _plan(self, request: TokenRequest) -> Plan:
        names, config, gate = request.voices, self.config, request.fuser.gate
        fixed = gate if gate in names else config.drafter if config.drafter in names else None
        if config.safe is not None:
            return Plan(fixed or names[0], config.safe.draft)
        if config.draft == 0:
            return Plan(fixed or names[0], 0)
        return self._pace.choose([fixed] if fixed else names, config.draft)

    async def judge(
        self,
        request: TokenRequest,
        first: str,
        pieces: Sequence[bytes],
        rows: Rows,
        scored: Sequence[int] = (),
        on: Callable[[Member], Awaitable[None]] | None = None,
    ) -> Rows:
        """Adds what the others say at the same places, and what the method needs besides.

        With a gate, the others are asked at the places where it is not sure. ``scored``: the keys
        whose probabilities are to be told, one for each place. ``on``: what ``first`` does while
        the others are asked.
        """
        places = list(range(max(len(pieces), 1)))
        gate = request.fuser.gate
        if gate is not None and not rows and first == gate:
            await self._ask(request, pieces, {gate: places}, rows)
        asked = [p for p in places if gate is None or not _sure(request, rows, p, gate)]
        others = {
            name: [p for p in asked if name not in rows.get(p, {})] for name in request.voices
        }
        others = {name: wanted for name, wanted in others.items() if wanted}
        await self._ask(request, pieces, others, rows, on=on and (first, on))
        more: dict[str, dict[int, list[int]]] = {}
        for place in places if scored else asked:
            told = rows.get(place, {})
            here = {name: told[name] for name in request.session.live if name in told}
            key = scored[place] if scored else None
            for name, ids in request.fuser.missing(here, key).items():
                more.setdefault(name, {})[place] = ids
        if more:
            needed = {name: sorted(ids) for name, ids in more.items()}
            await self._ask(request, pieces, needed, rows, more)
        return rows

    async def _ask(
        self,
        request: TokenRequest,
        pieces: Sequence[bytes],
        places: Mapping[str, Sequence[int]],
        rows: Rows,
        also: Mapping[str, Mapping[int, Sequence[int]]] | None = None,
        on: tuple[str, Callable[[Member], Awaitable[None]]] | None = None,
    ) -> None:
        """Puts members' rows at some places into ``rows``. Places that a window cannot hold any
        more are left out; raises ``ContextOverflow`` when that is the round's first."""
        wanted = also or {}

        async def tell(member: Member) -> dict[int, Row]:
            name = member.name
            if name not in places:
                assert on is not None
                await on[1](member)
                return {}
            ahead = request.ahead(name, pieces)
            fits = _fitting(ahead, places[name], member)
            if not fits:
                return {}
            ids = {place: wanted[name][place] for place in fits} if name in wanted else None
            told = await member.rows(ahead.cover(fits), request.top_k(member), ids)
            return {place: request.row(name, row) for place, row in told.items()}

        if not places:
            return
        names = [*places, on[0]] if on is not None and on[0] not in places else list(places)
        for name, found in (await request.session.each(tell, names)).items():
            for place, row in found.items():
                rows.setdefault(place, {})[name] = row

    async def _take(
        self, request: TokenRequest, drafter: str, pieces: Sequence[bytes], rows: Rows
    ) -> int:
        """Takes the ensemble's tokens, place by place, while the draft is right; how many were."""
        session, union = request.session, request.union
        safe = self.config.safe
        borders = request.borders(pieces) if safe is not None else []
        for place in range(max(len(pieces), 1)):
            told = rows.get(place, {})
            here = {name: told[name] for name in session.live if name in told}
            if not here:
                return place
            gate = request.fuser.gate
            alone = gate is not None and _sure(request, rows, place, gate)
            if len(here) < len(request.voices) and not alone:
                return place  # beyond a window, or all that were asked have failed
            drafted = union.key(pieces[place]) if pieces else NO_KEY
            spared = False
            if safe is not None and drafted != NO_KEY:
                spared = stands(drafted, here, drafter, borders[place], safe)
            if spared:
                key, fused = drafted, request.own(here[drafter])
            else:
                fused = await request.fuse(here)
                key = choose(fused, request.wish, request.place, union.noise_keys)
            request.take(key, fused, here)
            if session.ending is not None:
                return place + (key == drafted)
            if key != drafted:
                return place
        return len(pieces)


def _sure(request: TokenRequest, rows: Rows, place: int, gate: str) -> bool:
    row = rows.get(place, {}).get(gate)
    return row is not None and request.fuser.sure(row)


def _fitting(ahead: Ahead, places: Sequence[int], member: Member) -> list[int]:
    limit = member.connection.spec.context_length
    fits = [p for p in places if len(ahead.base) + len(ahead.tails[p]) < limit]
    if places[0] == 0 and 0 not in fits:
        raise ContextOverflow(member.name, len(ahead.base) + len(ahead.tails[0]), limit)
    return fits


def _union(connections: Sequence[Connection]) -> Union:
    """Slow for large vocabularies the first time; what it makes ready is kept."""
    union = union_of(
        [(c.name, c.tokenizer, c.spec.eos_ids, c.spec.vocab_size) for c in connections]
    )
    for connection in connections:
        len(connection.tokenizer.ids_of)
        union.ids(connection.name, END_KEY)
    len(union.noise_keys)
    return union
