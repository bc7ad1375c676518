"""The part of a session that writes an answer token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from runtime.call_context import use_call_context
from runtime.calls.ledger import Ledger
from runtime.calls.retries import with_retries
from runtime.config.ensembles import PolicyConfig
from runtime.errors import ContextOverflow
from runtime.observability.recorder import AnswerRecorder
from runtime.rng import derive_seed
from runtime.session.aux_models import ALONE, AuxModels
from runtime.session.connection import Connection
from runtime.session.member import Member
from runtime.session.membership import RequestSession, failure_or
from runtime.session.prompts import prompt_ids, with_question
from runtime.text.draft import Draft
from runtime.text.incremental import Context
from runtime.text.offsets import token_places
from runtime.text.stop_strings import cut_at_stop, find_stop
from runtime.types.events import Checkpoint, StopReason
from runtime.types.query import Query
from runtime.types.sampling import Sampling
from runtime.types.spans import Span, TokenChoice


class Session(RequestSession[Connection, Member]):
    """A request whose members write one shared text: each member has it as tokens of its own."""

    def __init__(
        self,
        query: Query,
        config: PolicyConfig,
        connections: Mapping[str, Connection],
        report: AnswerRecorder,
        checkpoint: Checkpoint | None = None,
        aux_models: AuxModels = ALONE,
    ) -> None:
        super().__init__(query, config, connections, report, self._member, checkpoint, aux_models)
        self.stops = query.stop
        """Texts that end the answer: the caller's, and those of the members themselves."""
        self._visible: Context | None = None
        limit = query.max_tokens
        self._max_tokens = config.max_tokens if limit is None else limit

    # -- members -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Gives each member its own prompt. Raises ``ContextOverflow`` if one cannot hold it,
        ``QuorumLost`` if too few members are available."""
        await super().open()
        reporter = await self._find_reporter()
        self._visible = Context(reporter.connection.tokenizer, (), self.text)
        self.prompt_tokens = len(reporter.context.ids) - len(self._visible.ids)
        if not self.query.ignore_eos:
            # Members lost on the way included: text was held back for their stops too.
            lost = (name for name, dropped in self.dropped.items() if dropped.step)
            authors = [name for name in self.names if name in {*self.live, *lost}]
            own = (stop for name in authors for stop in self._connections[name].config.stop)
            self.stops = tuple(dict.fromkeys((*self.query.stop, *own)))

    async def _find_reporter(self) -> Member:
        """The member whose tokens are counted. A resumed answer keeps its own, dropped or not, as
        long as that one can be reached."""
        if self._reporter is not None and self._reporter not in self.live and self.ledger.begun:
            member = await failure_or(self._connect, self._reporter)
            if isinstance(member, Member):
                return member
        if self._reporter not in self.live:
            self._reporter = next(iter(self.live))
        return self.live[self._reporter]

    def _member(self, connection: Connection, ledger: Ledger) -> Member:
        prompt = prompt_ids(self.query, connection, self.prompt_ids_member)
        return Member(connection, Context(connection.tokenizer, prompt, self.text), ledger)

    def member_with_question(self, name: str, question: str, text: str = "") -> Member:
        """A member whose prompt has ``question`` in the place of the caller's, and that has
        answered ``text`` so far. Raises ``ContextOverflow``."""
        connection = self._connections[name]
        prompt = prompt_ids(with_question(self.query, question), connection, self.prompt_ids_member)
        context = Context(connection.tokenizer, prompt, text)
        limit = connection.spec.context_length
        if text and len(context.ids) >= limit:
            raise ContextOverflow(name, len(context.ids), limit)
        return Member(connection, context, self.ledger)

    async def encode(self, text: str) -> np.ndarray:
        """The text's vector, float32 ``[size]``: by the ensemble's encoder, or the state of the
        member that the method names. Raises ``MemberFailed``."""
        name = self.config.encoder_name
        if self.encoder is not None or name is None:
            return await super().encode(text)
        connection = self._connections[name]
        # No other model can encode it, so an unavailable one is waited for.
        with use_call_context(replace(self.ledger.call_context, wait_for_replica=True)):
            await with_retries(connection.config, name, self.ledger, connection.open)
            ids = connection.tokenizer.encode_prompt(text)[: connection.spec.context_length]
            reader = Member(connection, Context(connection.tokenizer, ()), self.ledger)
            return await reader.embed(ids)

    @property
    def prompt_ids_member(self) -> str:
        """The member whose token ids a prompt may be sent in."""
        return self.config.reporting_member or self.config.members[0]

    def unsent(self, member: Member) -> int:
        """How many tokens a member reads before the caller's prompt: its BOS, or none."""
        known = member.connection.tokenizer.definition
        if not known.add_bos or known.bos is None:
            return 0
        if self.query.prompt_ids is not None and member.name == self.prompt_ids_member:
            return 0
        return int(not (self.query.prompt or "").startswith(known.bos))

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
        """The request's sampling parameters over the method's defaults, with a seed of the
        member's own."""
        query = self.query
        return Sampling(
            max_tokens=max_tokens,
            temperature=temperature if query.temperature is None else query.temperature,
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

    def cut_at_stop(self, text: str) -> str:
        """The part of a text before the first of the stops."""
        return cut_at_stop(text, self.stops)

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
        """Visible tokens: those of the accepted text, by the reporting member's tokenizer."""
        return self._completion_tokens if self._visible is None else len(self._visible.ids)

    @property
    def visible(self) -> Context:
        """The accepted text in the reporting member's tokens."""
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
        """Accepts text for good: every member continues from it.

        Cuts at a stop string and at the caller's token limit, and then sets ``ending``. ``tokens``
        are those of the text, for the span; a token that a cut divides is left out.
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
            by_caller = (self.text + text).startswith(self.query.stop, stop_at)
            text = text[: max(stop_at - len(self.text), 0)]
            ending = "stop" if by_caller else "eos"
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
        return self._accept(span, ending)

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Back to the prompt, for a method that chooses among whole answers; spending stays.

        If choosing fails, the text is restored.
        """
        past = (self.text, self.spans, self.ending, self._visible)
        self.text, self.spans, self.ending = "", [], None
        self._visible = Context(self.visible.tokenizer, ())
        self.live = {name: self._member(self._connections[name], self.ledger) for name in self.live}
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
