"""One LLM as a policy sees it during one session: text in, text out, budgeted and accounted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np

from runtime.artifacts.token_router import Router
from runtime.call_context import current_call_context, use_call_context
from runtime.calls.ledger import Ledger
from runtime.calls.retries import booked
from runtime.engines.base import DEFERS, GUESSES, Engine
from runtime.engines.external_deferral import DRAFT, ExternalDeferral
from runtime.errors import UnknownRouter
from runtime.observability.tracing import current_activity
from runtime.session.connection import Connection
from runtime.text.draft import Candidate, Draft, read
from runtime.text.incremental import Context
from runtime.text.pieces import Cover
from runtime.types.events import MemberUsage
from runtime.types.outputs import Distribution, Generation, Score
from runtime.types.sampling import Sampling
from runtime.types.spans import TokenChoice

T = TypeVar("T")

CHARACTER_TOKENS: Final = 4
"""Single bytes that the longest UTF-8 character takes: a draft must be able to hold one."""


class Member:
    """One LLM in one session."""

    def __init__(self, connection: Connection, context: Context, ledger: Ledger) -> None:
        self.name = connection.name
        self.connection = connection
        self.context = context
        self._ledger = ledger

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts at which this member ends an answer."""
        return self.connection.config.stop

    async def draft(
        self,
        sampling: Sampling,
        answer_ids: Sequence[int] | None = None,
        after: str = "",
        judge: bool = False,
        guess: str = "",
    ) -> Draft:
        """Continues the accepted text. Whole UTF-8 characters only.

        ``answer_ids`` are used instead of the canonical tokens of the accepted text: a member that
        writes alone continues exactly what it wrote. ``after`` is text that may be accepted
        next; with ``judge`` the same request scores it too. ``guess`` is what the member will
        probably write: it changes no text, and saves passes where it is right.
        """
        prompt = list(self.context.ids)
        tail: list[int] = []
        if answer_ids is not None:
            prompt[len(prompt) - len(self.context.answer_ids) :] = answer_ids
        elif after:
            kept, tail = self.context.preview(after)
            prompt[kept:] = tail
        if guess and answer_ids is None:
            sampling = replace(sampling, guess=self._guessed(prompt, after, guess))
        room = max(self.connection.spec.context_length - len(prompt), 1)
        judged = len(tail) if judge else 0
        on = bool(answer_ids)
        draft = await self._generate(prompt, sampling, room, judged, on)
        if not draft.text and draft.finish == "length" and sampling.max_tokens < CHARACTER_TOKENS:
            whole = replace(sampling, max_tokens=CHARACTER_TOKENS)
            draft = await self._generate(prompt, whole, room, judged, on)
        return draft

    def _guessed(self, prompt: Sequence[int], after: str, guess: str) -> tuple[int, ...]:
        """A guess in this member's tokens; none where its engine uses none, or where the last
        token of the prompt would change with it."""
        if GUESSES not in self.connection.spec.capabilities:
            return ()
        kept, tail = self.context.preview(after + guess)
        ids = [*self.context.ids[:kept], *tail]
        return tuple(ids[len(prompt) :]) if ids[: len(prompt)] == prompt else ()

    async def _generate(
        self, prompt: list[int], sampling: Sampling, room: int, judged: int, on: bool
    ) -> Draft:
        """``on``: continues its own answer, whose beginning was paid for."""
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        reply = await self._call(lambda engine: engine.generate(prompt, sampling, judged))
        self._book_generation(len(prompt), reply, on)
        return read(self.name, self.connection.tokenizer, reply)

    async def score(
        self, candidates: Sequence[Candidate], after: str = ""
    ) -> list[tuple[float, ...]]:
        """Logprobs of each candidate's tokens (its text in this member's own tokens) after the
        accepted text, and after ``after``, which may be accepted next. Where a border merges, the
        tokens that change are scored with it."""
        if after:
            return await self._after(after).score(candidates)
        views = [self.context.preview(candidate.text) for candidate in candidates]
        keep = min(n for n, _ in views)
        keep = max(1, keep)  # an engine needs one token to start from
        ids = self.context.ids
        eos = self.connection.spec.eos_ids[:1]
        tails = [
            [*ids[keep:n], *tail, *(eos if candidate.final else ())]
            for (n, tail), candidate in zip(views, candidates, strict=True)
        ]
        prompt = list(ids[:keep])
        replies = await self._call(lambda engine: engine.score(prompt, tails))
        cached = max((reply.cached_tokens for reply in replies), default=0)
        self._ledger.book(
            self.name,
            self._priced(
                prompt_tokens=len(prompt) - min(cached, len(prompt)) + sum(map(len, tails)),
                cached_tokens=min(cached, len(prompt)),
            ),
        )
        return [
            reply.logprobs[max(n - keep, 0) :] for (n, _), reply in zip(views, replies, strict=True)
        ]

    def _after(self, text: str) -> Member:
        """This member as it would be with more text accepted."""
        context = Context(self.context.tokenizer, self.context.prompt_ids, self.context.text + text)
        return Member(self.connection, context, self._ledger)

    async def prepare(self, call: Callable[[Engine], Awaitable[T]]) -> T:
        """One call of the method's own to the engine, such as for its embeddings."""
        return await self._call(call)

    async def embed(self, ids: Sequence[int]) -> np.ndarray:
        """The state that this member has after exact ids, float32 ``[hidden size]``."""
        states = await self._call(lambda engine: engine.embed([ids]))
        self._ledger.book(self.name, self._priced(prompt_tokens=len(ids)))
        state: np.ndarray = states[0]
        return state

    async def write(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        router: Router | None = None,
        plain: bool = False,
    ) -> Generation:
        """Continues exact ids, for methods that hold the tokens themselves. ``router`` is the
        one that ``sampling.defer`` names; ``plain`` applies it outside the engine, token by
        token."""
        room = max(self.connection.spec.context_length - len(prompt), 1)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        spec, defer = self.connection.spec, sampling.defer
        if defer is not None and (plain or DEFERS not in spec.capabilities):
            length = 1 if plain else DRAFT
            external = ExternalDeferral(self._call, sampling, router, spec.vocab_size, length)
            reply = await external.write(prompt)
            more = self._priced(prompt_tokens=external.read, completion_tokens=external.cut)
            self._ledger.book(self.name, more)
        else:

            async def generate(engine: Engine) -> Generation:
                try:
                    return await engine.generate(prompt, sampling)
                except UnknownRouter:
                    # This replica's first call under this router: it comes with the call.
                    assert defer is not None
                    brought = replace(sampling, defer=replace(defer, weights=router))
                    return await engine.generate(prompt, brought)

            reply = await self._call(generate)
        self._book_generation(len(prompt), reply, others=_others(reply, sampling))
        return reply

    async def rows(
        self, cover: Cover, top_k: int, also: Mapping[int, Sequence[int]] | None = None
    ) -> dict[int, Distribution]:
        """The next-token distribution at each place of ``cover``, in one call: the ``top_k`` best,
        and the ids that ``also`` names for that place."""
        prompt, named = cover.prompt, also or {}
        # Any token may stand after the last place: engines score it, but are not fed it.
        tails = [[*branch, prompt[-1]] for branch in cover.branches]
        extra: list[list[Sequence[int]]] = [[()] * len(tail) for tail in tails] if named else []
        for place, ids in named.items():
            branch, at = cover.places[place]
            extra[branch][at] = tuple(ids)
        replies = await self._call(lambda engine: engine.score(prompt, tails, top_k, extra))
        # The first branch may compute the prompt that the others then find in the cache.
        cached = min(min((reply.cached_tokens for reply in replies), default=0), len(prompt))
        fed = len(prompt) - cached + sum(map(len, cover.branches))
        self._ledger.book(self.name, self._priced(prompt_tokens=fed, cached_tokens=cached))
        return {
            place: (replies[branch].top or ())[at] for place, (branch, at) in cover.places.items()
        }

    async def score_prompt(self, unsent: int, top_k: int) -> list[TokenChoice]:
        """The prompt's tokens under this member but for the first ``unsent``, with the ``top_k``
        best at each place. The very first has no logprob: nothing stands before it."""
        return (await self._score_whole(self.context.ids, top_k))[unsent:]

    async def score_text(self, text: str) -> list[TokenChoice]:
        """The tokens of a text that stands alone under this member, without any chat template. The
        very first has no logprob; it is the BOS, if the tokenizer has one."""
        return await self._score_whole(self.connection.tokenizer.encode_prompt(text))

    async def _score_whole(self, ids: list[int], top_k: int = 0) -> list[TokenChoice]:
        reply = Score(())
        if len(ids) > 1:
            [reply] = await self._call(lambda engine: engine.score(ids[:1], [ids[1:]], top_k))
            cached = min(reply.cached_tokens, len(ids))
            used = self._priced(prompt_tokens=len(ids) - cached, cached_tokens=cached)
            self._ledger.book(self.name, used)
        first = TokenChoice(self.connection.tokenizer.decode_bytes(ids[:1]), None)
        return [first, *self.token_choices(ids[1:], reply.logprobs, reply.top or ())]

    def token_choices(
        self,
        ids: Sequence[int],
        logprobs: Sequence[float],
        top: Sequence[Distribution] = (),
    ) -> list[TokenChoice]:
        """Tokens of this member with their logprobs, for spans and replies."""
        data = self.connection.tokenizer.decode_bytes
        choices = []
        for place, (token, logprob) in enumerate(zip(ids, logprobs, strict=True)):
            row = top[place] if top else None
            best: list[tuple[bytes, float]] = []
            if row is not None and row.ids is not None:
                for i, value in zip(row.ids.tolist(), row.logprobs.tolist(), strict=True):
                    # The token itself has one figure, so that rounding makes no second one of it.
                    best.append((data((i,)), logprob if i == token else value))
            choices.append(TokenChoice(data((token,)), logprob, tuple(best)))
        return choices

    def _book_generation(
        self, prompt: int, reply: Generation, on: bool = False, others: int = 0
    ) -> None:
        """An answer that is written in pieces costs what it would in one, as long as the cache
        holds its beginning. ``others``: tokens that this member read and another one wrote."""
        used = self._priced(
            # Its last token would have been fed in any case.
            prompt_tokens=max(prompt - reply.cached_tokens - on, 0) + others,
            cached_tokens=0 if on else reply.cached_tokens,
            completion_tokens=len(reply.tokens) - others,
        )
        self._ledger.book(self.name, replace(used, cached_tokens=reply.cached_tokens))

    def _priced(
        self, prompt_tokens: int = 0, cached_tokens: int = 0, completion_tokens: int = 0
    ) -> MemberUsage:
        price = self.connection.config.price
        cached_price = price.input if price.cached_input is None else price.cached_input
        cost = (
            prompt_tokens * price.input
            + cached_tokens * cached_price
            + completion_tokens * price.output
        ) / 1e6
        return MemberUsage(
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=completion_tokens,
            cost=cost,
        )

    async def _call(self, call: Callable[[Engine], Awaitable[T]]) -> T:
        """One engine call; see ``booked``."""

        async def once(attempt: int) -> T:
            given = current_call_context()
            call_context = replace(
                self._ledger.call_context,
                attempt=attempt,
                seconds=given.seconds,
                wait_for_replica=given.wait_for_replica or self._ledger.wait_for_replica,
                traceparent=current_activity().traceparent,
            )
            with use_call_context(call_context):
                return await call(self.connection.engine)

        return await booked(self.connection.config, self.name, self._ledger, once)


def _others(reply: Generation, sampling: Sampling) -> int:
    """How many of the tokens another member wrote."""
    if sampling.defer is None:
        return 0
    confidences = reply.confidences[: len(reply.tokens)]
    return sum(value < sampling.defer.threshold for value in confidences)
