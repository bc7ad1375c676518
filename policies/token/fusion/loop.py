"""The loop of methods that fuse next-token distributions: distributions -> fuse -> commit.

The plain loop (``draft: 0``) requests every member's distribution after the text so far, fuses
them, takes one token and begins again: a barrier for each token. Drafted, one member writes a few
tokens ahead, with its distribution at each; the others return theirs at all those places in one
call; then the method fuses place after place and takes the ensemble's own choice, until that
differs from the drafted token. The fused distribution at a place depends only on the text before
it, and a place counts only while all drafted tokens before it were accepted. So the text equals
the plain loop's, for greedy choices and for sampled ones, whose noise is keyed by place and text
(runtime/rng.py), as far as an engine computes the same numbers for one token and for several.

Every call carries the whole context, of which the engine computes what its cache lacks; a member
that was not called for a while therefore needs no separate update.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from policies.base import Need, Policy
from policies.token.fusion.config import TokenConfig
from policies.token.fusion.draft_scheduler import DraftScheduler, Plan
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
    """A draft written while the previous one was scored."""

    plan: Plan
    draft: Drafted


class TokenPolicy(Policy[T]):
    """Methods implement ``fuser``, which fuses rows; the loop does the rest.

    Cost of a round: a drafting call to one member and one call to each other; a further call to
    each member of which the method needs the logprobs of more tokens.
    """

    level: ClassVar[str] = "token"
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"), Need("next_token"))
    tells_logprobs: ClassVar[bool] = True
    can_score: ClassVar[bool] = True

    def __init__(self, config: T) -> None:
        super().__init__(config)
        self.scheduler = DraftScheduler()

    @abstractmethod
    async def fuser(self, session: Session, union: Union, weights: Mapping[str, float]) -> Fuser:
        """The fuser of one request; ``weights`` are the configured ones, by member."""

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
        """The state of one request: its union vocabulary, its fuser, its members' contexts."""
        connections = [member.connection for member in session.live.values()]
        union = await asyncio.to_thread(_union, connections)
        weights = {name: self.config.weights.get(name, 1.0) for name in session.live}
        fuser = await self.fuser(session, union, weights)
        return TokenRequest(session, self.config, union, fuser)

    async def score(self, session: Session) -> list[TokenChoice]:
        """The prompt's tokens in the reporting member's tokenizer, with fused logprobs.

        Raises ``BadRequest`` when this ensemble writes in another member's tokens.
        """
        writer = self.config.vocabulary
        if writer is not None and writer != session.prompt_ids_member:
            raise BadRequest(
                f"texts are scored in the tokens of {session.prompt_ids_member!r}, but this "
                f"ensemble writes in those of {writer!r}; set reporting_member: {writer}",
                "echo",
            )
        request = await self.request(session)
        return await score_text(self.judge, request)

    # -- one round ---------------------------------------------------------------------------

    async def _round(self, request: TokenRequest, ready: _Ready | None) -> _Ready | None:
        """Drafts, scores the draft, takes the ensemble's choices. ``ready``: a draft written during
        the previous round; returns one for the next round, if there is one."""
        session = request.session
        plan = self._plan(request) if ready is None else ready.plan
        written: dict[str, Drafted] = {} if ready is None else {plan.drafter: ready.draft}
        started = self.scheduler.clock()
        if plan.length and not written:
            written = await session.each(
                lambda member: draft(request, member, plan.length), [plan.drafter]
            )
            if not written:  # the drafter failed; the others continue
                return None
        drafted = written.get(plan.drafter, Drafted())
        rows: Rows = {place: {plan.drafter: row} for place, row in enumerate(drafted.rows)}
        following: list[Drafted] = []

        async def draft_on(member: Member) -> None:
            following.append(await draft(request, member, plan.length, drafted))

        left = session.tokens_left - len(drafted.pieces)
        on = draft_on if plan.on and drafted.after is not None and left > 0 else None
        rows = await self.judge(request, plan.drafter, drafted.pieces, rows, on=on)
        before = request.place
        accepted = await self._take(request, plan.drafter, drafted.pieces, rows)
        request.counts["rounds"] += 1
        if drafted.pieces:
            request.counts["drafted"] += len(drafted.pieces)
            request.counts["kept"] += accepted
            self.scheduler.record(plan, request.place - before, self.scheduler.clock() - started)
        right = drafted.pieces and accepted == len(drafted.pieces) and plan.drafter in session.live
        return _Ready(plan, following[0]) if right and following else None

    def _plan(self, request: TokenRequest) -> Plan:
        names, config, gate = request.voices, self.config, request.fuser.gate
        fixed = gate if gate in names else config.drafter if config.drafter in names else None
        if config.safe is not None:
            return Plan(fixed or names[0], config.safe.draft)
        if config.draft == 0:
            return Plan(fixed or names[0], 0)
        return self.scheduler.choose([fixed] if fixed else names, config.draft)

    async def judge(
        self,
        request: TokenRequest,
        first: str,
        pieces: Sequence[bytes],
        rows: Rows,
        scored: Sequence[int] = (),
        on: Callable[[Member], Awaitable[None]] | None = None,
    ) -> Rows:
        """Adds the other members' rows at the same places, and the further logprobs that the method
        needs.

        With a gate, the others are called only for the places where it is not sure. ``scored``: the
        keys whose probabilities are needed, one for each place. ``on``: what ``first`` does during
        the calls to the others.

        Raises ``ContextOverflow`` when a window cannot hold the round's first place.
        """
        places = list(range(max(len(pieces), 1)))
        gate = request.fuser.gate
        if gate is not None and not rows and first == gate:
            await self._request_rows(request, pieces, {gate: places}, rows)
        consulted = [p for p in places if gate is None or not _sure(request, rows, p, gate)]
        others = {
            name: [p for p in consulted if name not in rows.get(p, {})] for name in request.voices
        }
        others = {name: wanted for name, wanted in others.items() if wanted}
        await self._request_rows(request, pieces, others, rows, on=on and (first, on))
        more: dict[str, dict[int, list[int]]] = {}
        for place in places if scored else consulted:
            at_place = rows.get(place, {})
            here = {name: at_place[name] for name in request.session.live if name in at_place}
            key = scored[place] if scored else None
            for name, ids in request.fuser.missing(here, key).items():
                more.setdefault(name, {})[place] = ids
        if more:
            needed = {name: sorted(ids) for name, ids in more.items()}
            await self._request_rows(request, pieces, needed, rows, more)
        return rows

    async def _request_rows(
        self,
        request: TokenRequest,
        pieces: Sequence[bytes],
        places: Mapping[str, Sequence[int]],
        rows: Rows,
        also: Mapping[str, Mapping[int, Sequence[int]]] | None = None,
        on: tuple[str, Callable[[Member], Awaitable[None]]] | None = None,
    ) -> None:
        """Adds members' rows at ``places`` to ``rows``. Places beyond a member's window are left
        out; raises ``ContextOverflow`` when that includes the round's first."""
        wanted = also or {}

        async def call(member: Member) -> dict[int, Row]:
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
            reply = await member.rows(ahead.cover(fits), request.top_k(member), ids)
            return {place: request.row(name, row) for place, row in reply.items()}

        if not places:
            return
        names = [*places, on[0]] if on is not None and on[0] not in places else list(places)
        for name, member_rows in (await request.session.each(call, names)).items():
            for place, row in member_rows.items():
                rows.setdefault(place, {})[name] = row

    async def _take(
        self, request: TokenRequest, drafter: str, pieces: Sequence[bytes], rows: Rows
    ) -> int:
        """Takes the ensemble's tokens, place by place, until one differs from the draft; returns
        the number of accepted draft tokens."""
        session, union = request.session, request.union
        safe = self.config.safe
        borders = request.borders(pieces) if safe is not None else []
        for place in range(max(len(pieces), 1)):
            at_place = rows.get(place, {})
            here = {name: at_place[name] for name in session.live if name in at_place}
            if not here:
                return place
            gate = request.fuser.gate
            alone = gate is not None and _sure(request, rows, place, gate)
            if len(here) < len(request.voices) and not alone:
                return place  # beyond a window, or all called members have failed
            drafted = union.key(pieces[place]) if pieces else NO_KEY
            spared = False
            if safe is not None and drafted != NO_KEY:
                spared = stands(drafted, here, drafter, borders[place], safe)
            if spared:
                key, fused = drafted, request.own(here[drafter])
            else:
                fused = await request.fuse(here)
                key = choose(fused, request.params, request.place, union.noise_keys)
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
    """Slow for large vocabularies at first; the result is cached."""
    union = union_of(
        [(c.name, c.tokenizer, c.spec.eos_ids, c.spec.vocab_size) for c in connections]
    )
    for connection in connections:
        len(connection.tokenizer.ids_of)
        union.ids(connection.name, END_KEY)
    len(union.noise_keys)
    return union
