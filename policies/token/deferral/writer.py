"""The state of one answer written by two members: tokens, authors and offered tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from policies.token.deferral.config import DeferralConfig
from policies.token.deferral.exact_text import ExactText, Written
from runtime.artifacts.token_router import Router
from runtime.errors import ContextOverflow
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.types.outputs import Generation
from runtime.types.sampling import Deferral, Sampling, Signal
from runtime.types.spans import Span, TokenChoice, token_from_json, token_to_json

LINE: Final = "\n"


class Writing:
    """One request. ``session.state`` holds the ids, the offered tokens, and each member's count."""

    def __init__(
        self, session: Session, config: DeferralConfig, by: Signal, router: Router | None
    ) -> None:
        self._session, self._config, self._by, self._router = session, config, by, router
        self._small, self._large = config.pair
        own = session.query.threshold
        self._threshold = config.threshold if own is None else own
        state = session.state
        self._counts: dict[str, int] = state.setdefault("counts", dict.fromkeys(config.members, 0))
        self._offered = [
            Written(id_, self._large, choice and token_from_json(choice))
            for id_, choice in state.setdefault("offered", [])
        ]
        member = session.live.get(self._small) or session.live[self._large]
        self._text = ExactText(session, member.connection.tokenizer)
        self._detailed = session.query.logprobs is not None or session.query.trace == "full"
        self._report()

    async def round(self) -> list[Span]:
        """One call: a run of the small member, or the large one's token after a deferral. Returns
        the spans of one call, so that they are emitted before the next call may fail."""
        session, live = self._session, self._session.live
        if self._small not in live or self._large not in live:
            spans = await self._alone(next(iter(live)))
        elif session.state.get("due") is not None:
            spans = await self._large_token(session.state["due"])
        else:
            spans = await self._small_run()
        session.state["offered"] = [
            [token.id, token.choice and token_to_json(token.choice)] for token in self._offered
        ]
        self._report()
        return spans

    async def _small_run(self) -> list[Span]:
        """The small member writes until it defers; then the large one's token is due."""
        defer = Deferral(
            self._by,
            self._threshold,
            self._router.version if self._router is not None else "",
            offered=tuple(token.id for token in self._offered),
        )
        reply = await self._write(self._small, self._config.chunk_tokens, defer)
        if reply is None:
            return []
        if reply.finish == "deferred":
            self._session.state["due"] = reply.confidences[-1]
        return self._take(reply)

    async def _large_token(self, sure: float) -> list[Span]:
        """The large member's token; further ones are offered to the small member."""
        ahead = 0 if self._config.plain else self._config.ahead
        reply = await self._write(self._large, 1 + ahead, until=(LINE,) if ahead else ())
        if reply is None:
            return []
        self._session.state["due"] = None
        first, *self._offered = self._tokens(self._large, reply)
        first = self._with_weights(first, sure)
        self._counts[self._large] += 1
        if reply.finish == "eos":
            if not self._offered:
                return self._text.take([], first)
            self._offered.pop()  # the other member may not treat that id as EOS
        return self._text.take([first])

    async def _alone(self, name: str) -> list[Span]:
        self._offered, self._session.state["due"] = [], None
        reply = await self._write(name, self._config.chunk_tokens)
        if reply is None:
            return []
        tokens = self._tokens(name, reply)
        end = tokens.pop() if reply.finish == "eos" else None
        return self._add(tokens[: self._session.tokens_left], end)

    # -- calls -------------------------------------------------------------------------------

    async def _write(
        self,
        name: str,
        most: int,
        defer: Deferral | None = None,
        until: tuple[str, ...] = (),
    ) -> Generation | None:
        """The member's next tokens; ``None`` once it is dropped. Raises ``ContextOverflow``."""
        session = self._session

        async def write(member: Member) -> Generation:
            context = [*member.context.prompt_ids, *self._text.ids]
            limit = member.connection.spec.context_length
            if len(context) >= limit:
                raise ContextOverflow(name, len(context), limit)
            sampling = self._sampling(member, most, defer, until)
            return await member.write(context, sampling, self._router, self._config.plain)

        return (await session.each(write, [name])).get(name)

    def _sampling(
        self, member: Member, most: int, defer: Deferral | None, until: tuple[str, ...]
    ) -> Sampling:
        session = self._session
        # One more than is left, so that an answer of just that length can end.
        size = max(1, min(most, session.tokens_left + 1))
        sampling = session.sampling(
            member, size, temperature=self._config.temperature, top_p=self._config.top_p
        )
        return replace(
            sampling, top_k=session.query.logprobs or 0, defer=defer, stop=(*sampling.stop, *until)
        )

    # -- the text ----------------------------------------------------------------------------

    def _take(self, reply: Generation) -> list[Span]:
        """Adds the small member's run, including offered tokens that it took."""
        own = self._tokens(self._small, reply)
        end = own.pop() if reply.finish == "eos" else None
        taken: list[Written] = []
        # One more than is left was requested, so that an answer of just that length can end.
        left = self._session.tokens_left
        for token, sure in zip(own[:left], reply.confidences, strict=False):
            offer = self._offered.pop(0) if self._offered else None
            if sure < self._threshold:
                assert offer is not None and offer.id == token.id
                token = offer
            elif offer is not None and offer.id != token.id:
                self._offered = []
            taken.append(self._with_weights(token, sure))
        return self._add(taken, end)

    def _with_weights(self, token: Written, sure: float) -> Written:
        """The token with the small member's confidence before it."""
        if token.choice is None:
            return token
        weights = {self._small: sure, self._large: 1.0 - sure}
        return replace(token, choice=replace(token.choice, weights=weights))

    def _add(self, tokens: list[Written], end: Written | None) -> list[Span]:
        for token in tokens if end is None else [*tokens, end]:
            self._counts[token.author] += 1
        return self._text.take(tokens, end)

    def _tokens(self, name: str, reply: Generation) -> list[Written]:
        choices: list[TokenChoice | None] = [None] * len(reply.tokens)
        if self._detailed:
            member = self._session.live[name]
            choices = list(member.token_choices(reply.tokens, reply.logprobs, reply.top or ()))
        return [Written(id_, name, one) for id_, one in zip(reply.tokens, choices, strict=True)]

    def _report(self) -> None:
        self._session.decision = {
            "by": self._by,
            "threshold": self._threshold,
            "tokens": dict(self._counts),
            **({} if self._router is None else {"router": self._router.version}),
        }
