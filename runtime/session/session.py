"""One request: its members, the accepted text, the budget and what happened."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from runtime.call_context import CallContext, use_call_context
from runtime.calls.ledger import Ledger
from runtime.calls.retries import with_retries
from runtime.concurrency import gather_or_cancel
from runtime.config.ensembles import PolicyConfig
from runtime.encoders.client import Encoder
from runtime.errors import ContextOverflow, MemberFailed, QuorumLost
from runtime.observability.recorder import Report
from runtime.rewards.client import Judge
from runtime.rng import derive_seed
from runtime.session.aux_models import ALONE, AuxModels
from runtime.session.connection import Connection
from runtime.session.member import Member
from runtime.session.prompts import asking, prompt_ids, question_of
from runtime.text.draft import Draft
from runtime.text.incremental import Context
from runtime.text.offsets import token_places
from runtime.text.stop_strings import before_stop, find_stop
from runtime.types.events import Checkpoint, Dropped, StopReason
from runtime.types.query import Query
from runtime.types.sampling import Sampling
from runtime.types.spans import Span, TokenChoice

A = TypeVar("A")
T = TypeVar("T")


class Session:
    """What a policy works with. Made by the coordinator; ``open`` must be awaited first."""

    def __init__(
        self,
        query: Query,
        config: PolicyConfig,
        connections: Mapping[str, Connection],
        report: Report,
        checkpoint: Checkpoint | None = None,
        aux_models: AuxModels = ALONE,
    ) -> None:
        past = checkpoint or Checkpoint()
        names = query.members or config.members
        self.query = query
        self.ledger = Ledger(
            CallContext(query.id, query.priority),
            config.budget.budget().narrow(query.budget),
            report,
            dict.fromkeys((*names, *aux_models.names, *filter(None, (config.encoded_by,)))),
            past,
            query.left,
        )
        self.judge = None if aux_models.judge is None else Judge(aux_models.judge, self.ledger)
        """The reward model, for methods that ask one."""
        self.encoder = (
            None if aux_models.encoder is None else Encoder(aux_models.encoder, self.ledger)
        )
        """The text encoder, for methods that ask one of their own."""
        self.config = config
        self.live: dict[str, Member] = {}
        """Members that have not been dropped, in the ensemble's order."""
        self.state: dict[str, Any] = copy.deepcopy(dict(past.state))
        """The policy's own state; JSON values only, so that another coordinator can go on."""
        self.decision: dict[str, Any] = {}
        """What the method tells of its choice of members in every answer's metadata."""
        self.text = past.text
        self.shown = past.shown
        """Characters of it that were told; the coordinator's."""
        self.step = past.step
        self.spans: list[Span] = list(past.spans)
        self.dropped: dict[str, Dropped] = dict(past.dropped)
        self.ending: StopReason | None = past.ending
        """Why the answer ended; a policy returns once this is set."""
        self.warnings: list[str] = list(past.warnings)
        self.stops = query.stop
        """Texts that end the answer: the caller's, and those of the members themselves."""
        self.prompt_tokens = past.prompt_tokens
        self._tokens_before = past.completion_tokens
        self.names = names
        self._connections = connections
        self._report = report
        self._visible: Context | None = None
        self._reporter = past.reporter or config.reporting_member
        limit = query.max_tokens
        self._max_tokens = config.max_tokens if limit is None else limit

    # -- members -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Gives each member its own prompt. Raises ``ContextOverflow`` if one cannot hold it."""
        wanted = [name for name in self.names if name not in self.dropped]
        seats = await self._asked(self._open, wanted)
        self.live = {name: seat for name, seat in seats.items() if isinstance(seat, Member)}
        if unavailable := self._missed(seats):
            # Of an answer that is on its way; others are told to come back.
            with use_call_context(replace(self.ledger.call_context, wait_for_replica=True)):
                seats |= await self._asked(self._open, unavailable)
        for name, seat in seats.items():
            if isinstance(seat, MemberFailed):
                self._drop(name, seat.reason)
            else:
                self.live[name] = seat
        self._check_quorum()
        # A member's own order, whoever came first.
        self.live = {name: self.live[name] for name in self.names if name in self.live}
        reporter = await self._find_reporter()
        self._visible = Context(reporter.connection.tokenizer, (), self.text)
        self.prompt_tokens = len(reporter.context.ids) - len(self._visible.ids)
        if not self.query.ignore_eos:
            # Of those too that were lost on the way: what was held back for them stays so.
            lost = (name for name, dropped in self.dropped.items() if dropped.step)
            authors = [name for name in self.names if name in {*self.live, *lost}]
            own = (stop for name in authors for stop in self._connections[name].config.stop)
            self.stops = tuple(dict.fromkeys((*self.query.stop, *own)))

    async def _asked(
        self, ask: Callable[[str], Awaitable[T]], names: Sequence[str]
    ) -> dict[str, T | MemberFailed]:
        told = await gather_or_cancel(*(_tolerant(ask, name) for name in names))
        return dict(zip(names, told, strict=True))

    def _missed(self, told: Mapping[str, object]) -> list[str]:
        """Members that were absent and without which the quorum is lost: they are waited for."""
        failed = {name: it for name, it in told.items() if isinstance(it, MemberFailed)}
        enough = len(self.live.keys() - failed.keys()) >= self._needed
        if enough or not self.ledger.working:
            return []
        return [name for name, fault in failed.items() if fault.unavailable]

    async def _find_reporter(self) -> Member:
        """Whose tokens are counted: an answer that goes on keeps its own, dropped or not, as long
        as that one can still be reached."""
        if self._reporter is not None and self._reporter not in self.live and self.ledger.begun:
            seat = await _tolerant(self._open, self._reporter)
            if isinstance(seat, Member):
                return seat
        if self._reporter not in self.live:
            self._reporter = next(iter(self.live))
        return self.live[self._reporter]

    async def _open(self, name: str) -> Member:
        """Reaches a member within its timeout and retries; raises ``MemberFailed`` otherwise."""
        connection = self._connections[name]
        await with_retries(connection.config, name, self.ledger, connection.open)
        return self._seat(connection)

    def _seat(self, connection: Connection) -> Member:
        prompt = prompt_ids(self.query, connection, self.ids_of)
        return Member(connection, Context(connection.tokenizer, prompt, self.text), self.ledger)

    @property
    def question(self) -> str:
        """What the caller asks, without the turns before it."""
        return question_of(self.query)

    def asked(self, name: str, question: str, text: str = "") -> Member:
        """A member that is asked something else in the place of what the caller asks, and has
        answered ``text`` so far. Raises ``ContextOverflow``."""
        connection = self._connections[name]
        prompt = prompt_ids(asking(self.query, question), connection, self.ids_of)
        context = Context(connection.tokenizer, prompt, text)
        limit = connection.spec.context_length
        if text and len(context.ids) >= limit:
            raise ContextOverflow(name, len(context.ids), limit)
        return Member(connection, context, self.ledger)

    async def encode(self, text: str) -> np.ndarray:
        """The text's vector, float32 ``[size]``: by the encoder of its own that the method is
        configured with, or by the member that it names. Raises ``MemberFailed``."""
        if self.encoder is not None:
            return await self.encoder.encode(text)
        name = self.config.encoded_by
        if name is None:
            raise RuntimeError(f"{self.config.type} is configured with no encoder")
        connection = self._connections[name]
        with use_call_context(
            replace(self.ledger.call_context, wait_for_replica=True)
        ):  # nobody else can do it
            await with_retries(connection.config, name, self.ledger, connection.open)
            ids = connection.tokenizer.encode_prompt(text)[: connection.spec.context_length]
            reader = Member(connection, Context(connection.tokenizer, ()), self.ledger)
            return await reader.embed(ids)

    @property
    def ids_of(self) -> str:
        """The member whose token ids a prompt may be sent in."""
        return self.config.reporting_member or self.config.members[0]

    def unsent(self, member: Member) -> int:
        """How many tokens a member reads before the caller's prompt: its BOS, or none."""
        known = member.connection.tokenizer.definition
        if not known.add_bos or known.bos is None:
            return 0
        if self.query.prompt_ids is not None and member.name == self.ids_of:
            return 0
        return int(not (self.query.prompt or "").startswith(known.bos))

    async def each(
        self, ask: Callable[[Member], Awaitable[T]], members: Iterable[str] | None = None
    ) -> dict[str, T]:
        """Asks members at the same time; one that fails is dropped and missing in the result.

        Raises ``QuorumLost`` when too few members are left, ``BudgetSpent`` at a limit.
        """
        names = [n for n in self.live if members is None or n in set(members)]
        answers = await self._asked(lambda name: ask(self.live[name]), names)
        if unavailable := self._missed(answers):
            self.ledger.indispensable = True
            answers |= await self._asked(lambda name: ask(self.live[name]), unavailable)
        result: dict[str, T] = {}
        for name, answer in answers.items():
            if isinstance(answer, MemberFailed):
                self._drop(name, answer.reason)
            else:
                result[name] = answer
        self._check_quorum()
        return result

    def _drop(self, name: str, reason: str) -> None:
        self.live.pop(name, None)
        self.dropped[name] = Dropped(self.step, reason)
        self._report.dropped(name, self.step, reason)

    def _check_quorum(self) -> None:
        self.ledger.indispensable = len(self.live) <= self._needed
        if len(self.live) < self._needed:
            states = {
                name: self.dropped[name].reason if name in self.dropped else "ok"
                for name in self.names
            }
            raise QuorumLost(self._needed, states)

    @property
    def _needed(self) -> int:
        return max(min(self.config.quorum, len(self.names)), 1)

    # -- writing -----------------------------------------------------------------------------

    def sampling(
        self,
        member: Member,
        max_tokens: int,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        words: int | None = None,
    ) -> Sampling:
        """The request's wishes over the method's defaults, with a seed of the member's own."""
        query = self.query
        asked = query.temperature
        return Sampling(
            max_tokens=max_tokens,
            temperature=temperature if asked is None else asked,
            top_p=top_p if query.top_p is None else query.top_p,
            seed=derive_seed(query.seed, member.name),  # members must not draw the same noise
            stop=query.stop if query.ignore_eos else (*query.stop, *member.stops),
            words=words,
            ignore_eos=query.ignore_eos,
        )

    def restrict_stops(self, author: str) -> None:
        """From now on only the caller's stops and this member's own end the answer."""
        member = self.live.get(author)
        own = () if self.query.ignore_eos or member is None else member.stops
        self.stops = tuple(dict.fromkeys((*self.query.stop, *own)))

    def before_stop(self, text: str) -> str:
        """The part of a text before the first of the stops."""
        return before_stop(text, self.stops)

    def stops_in(self, text: str, since: int) -> bool:
        """Whether a stop string ends in ``text`` after offset ``since``: there the answer would
        end."""
        return find_stop(text, self.stops, since) is not None

    @property
    def tokens_left(self) -> int:
        """Visible tokens until the caller's limit."""
        return self._max_tokens - self.completion_tokens

    @property
    def completion_tokens(self) -> int:
        return self._tokens_before if self._visible is None else len(self._visible.ids)

    @property
    def visible(self) -> Context:
        if self._visible is None:
            raise RuntimeError("Session.open() was not awaited")
        return self._visible

    def commit(
        self,
        draft: Draft,
        scores: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        tokens: Sequence[TokenChoice] = (),
    ) -> Span:
        """Accepts text for good: every member goes on from it.

        Cuts at a stop string and at the caller's token limit, and then sets ``ending``. ``tokens``
        are those of the text, told with it; what a cut goes through is left out.
        """
        text = draft.text
        ending: StopReason | None = "eos" if draft.final else None
        if not text and ending is None:
            ending = "length" if draft.finish == "length" else "eos"
            self.warnings.append(
                f"{draft.author} had no whole character to add at step {self.step}"
            )
        stop_at = find_stop(self.text + text, self.stops, len(self.text))
        if stop_at is not None:
            asked_for = (self.text + text).startswith(self.query.stop, stop_at)
            text = text[: max(stop_at - len(self.text), 0)]
            ending = "stop" if asked_for else "eos"
            self.text = self.text[:stop_at]
        self.text += text
        self._count(text, stopped=stop_at is not None)
        if self.completion_tokens >= self._max_tokens and (
            ending is None or self.completion_tokens > self._max_tokens
        ):
            text = self._trim(text)
            ending = "length"
        if ending is None:
            for member in self.live.values():
                member.context.append(text)
        final = draft.final and ending == "eos"
        if draft.final and not final and tokens and not tokens[-1].data:
            tokens = tokens[:-1]
        places = token_places(token.data for token in tokens)
        span = Span(
            text=text,
            author=draft.author,
            step=self.step,
            scores=dict(scores or {}),
            weights=weights,
            final=final,
            tokens=tuple(t for t, (_, end) in zip(tokens, places, strict=True) if end <= len(text)),
        )
        self.spans.append(span)
        self.step += 1
        self.ledger.begun = True
        self.ending = ending
        return span

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Back to the prompt, for a method that chooses among whole answers; spending stays.

        Should choosing fail, the text as it was comes back.
        """
        past = (self.text, self.spans, self.ending, self._visible)
        self.text, self.spans, self.ending = "", [], None
        self._visible = Context(self.visible.tokenizer, ())
        self.live = {name: self._seat(self._connections[name]) for name in self.live}
        chosen = False
        try:
            yield
            chosen = True
        finally:
            if not chosen:
                self.text, self.spans, self.ending, self._visible = past

    def _count(self, text: str, stopped: bool) -> None:
        if stopped:  # the stop string may have begun in an earlier span
            self._visible = Context(self.visible.tokenizer, (), self.text)
        else:
            self.visible.append(text)

    def _trim(self, text: str) -> str:
        """Cuts the answer to the caller's limit; returns what is left of the last span."""
        tokenizer = self.visible.tokenizer
        ids = self.visible.ids[: self._max_tokens]
        kept = tokenizer.decode(ids[: tokenizer.whole_characters(ids)])
        before = len(self.text) - len(text)
        self.text = self.text[: max(len(kept), before)]
        self._visible = Context(tokenizer, (), self.text)
        return self.text[before:]

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            text=self.text,
            step=self.step,
            state=copy.deepcopy(self.state),
            dropped=dict(self.dropped),
            usage=dict(self.ledger.usage),
            elapsed=self.ledger.elapsed,
            ending=self.ending,
            reporter=self._reporter,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            warnings=tuple(self.warnings),
            before=self.ledger.before,
            shown=self.shown,
        )


async def _tolerant(ask: Callable[[A], Awaitable[T]], whom: A) -> T | MemberFailed:
    try:
        return await ask(whom)
    except MemberFailed as failed:
        return failed
