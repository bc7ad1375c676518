"""The state of one answer that two members write: who wrote what, and what is written ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from policies.token.deferral.config import HandoverConfig
from policies.token.deferral.exact_text import ExactText, Written
from runtime.artifacts.token_router import Router
from runtime.errors import ContextOverflow
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.types.outputs import Generation
from runtime.types.sampling import Deferral, Sampling, Signal
from runtime.types.spans import Span, TokenChoice, packed, unpacked

LINE: Final = "\n"


class Writing:
    """One request. ``session.state`` holds the ids, what was offered, and how many tokens each has
    written."""

    def __init__(
        self, session: Session, config: HandoverConfig, by: Signal, router: Router | None
    ) -> None:
        self._session, self._config, self._by, self._router = session, config, by, router
        self._small, self._large = config.pair
        asked = session.query.threshold
        self._threshold = config.threshold if asked is None else asked
        state = session.state
        self._counts: dict[str, int] = state.setdefault("counts", dict.fromkeys(config.members, 0))
        self._offered = [
            Written(id_, self._large, told and unpacked(told))
            for id_, told in state.setdefault("offered", [])
        ]
        seat = session.live.get(self._small) or session.live[self._large]
        self._text = ExactText(session, seat.connection.tokenizer)
        self._told = session.query.logprobs is not None or session.query.trace == "full"
        self._report()

    async def round(self) -> list[Span]:
        """One call: a stretch of the small member's, or the large one's token where that handed
        over. What one call has written is told before the next may fail."""
        session, live = self._session, self._session.live
        if self._small not in live or self._large not in live:
            spans = await self._alone(next(iter(live)))
        elif session.state.get("due") is not None:
            spans = await self._taken_over(session.state["due"])
        else:
            spans = await self._stretch()
        session.state["offered"] = [
            [token.id, token.told and packed(token.told)] for token in self._offered
        ]
        self._report()
        return spans

    async def _stretch(self) -> list[Span]:
        """The small member writes until it hands over; then the large one's token is due."""
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

    async def _taken_over(self, sure: float) -> list[Span]:
        """The large member's token; those that it writes beyond are offered."""
        ahead = 0 if self._config.plain else self._config.ahead
        reply = await self._write(self._large, 1 + ahead, until=(LINE,) if ahead else ())
        if reply is None:
            return []
        self._session.state["due"] = None
        first, *self._offered = self._tokens(self._large, reply)
        first = self._weighed(first, sure)
        self._counts[self._large] += 1
        if reply.finish == "eos":
            if not self._offered:
                return self._text.take([], first)
            self._offered.pop()  # nobody else might know that id for an end
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
        """The member's next tokens; ``None`` once it is lost. Raises ``ContextOverflow``."""
        session = self._session

        async def write(member: Member) -> Generation:
            context = [*member.context.prompt_ids, *self._text.ids]
            limit = member.connection.spec.context_length
            if len(context) >= limit:
                raise ContextOverflow(name, len(context), limit)
            wish = self._sampling(member, most, defer, until)
            return await member.write(context, wish, self._router, self._config.plain)

        return (await session.each(write, [name])).get(name)

    def _sampling(
        self, member: Member, most: int, defer: Deferral | None, until: tuple[str, ...]
    ) -> Sampling:
        session = self._session
        # One more than is left, so that an answer of just that length can end.
        size = max(1, min(most, session.tokens_left + 1))
        wish = session.sampling(
            member, size, temperature=self._config.temperature, top_p=self._config.top_p
        )
        return replace(
            wish, top_k=session.query.logprobs or 0, defer=defer, stop=(*wish.stop, *until)
        )

    # -- the text ----------------------------------------------------------------------------

    def _take(self, reply: Generation) -> list[Span]:
        """The small member's stretch, with the offered tokens in it."""
        own = self._tokens(self._small, reply)
        end = own.pop() if reply.finish == "eos" else None
        taken: list[Written] = []
        # One more than is left was asked for, lest an answer of just that length seem cut off.
        left = self._session.tokens_left
        for token, sure in zip(own[:left], reply.confidences, strict=False):
            offer = self._offered.pop(0) if self._offered else None
            if sure < self._threshold:
                assert offer is not None and offer.id == token.id
                token = offer
            elif offer is not None and offer.id != token.id:
                self._offered = []
            taken.append(self._weighed(token, sure))
        return self._add(taken, end)

    def _weighed(self, token: Written, sure: float) -> Written:
        """The token with the small member's confidence before it."""
        if token.told is None:
            return token
        weights = {self._small: sure, self._large: 1.0 - sure}
        return replace(token, told=replace(token.told, weights=weights))

    def _add(self, tokens: list[Written], end: Written | None) -> list[Span]:
        for token in tokens if end is None else [*tokens, end]:
            self._counts[token.author] += 1
        return self._text.take(tokens, end)

    def _tokens(self, name: str, reply: Generation) -> list[Written]:
        told: list[TokenChoice | None] = [None] * len(reply.tokens)
        if self._told:
            member = self._session.live[name]
            told = list(member.told(reply.tokens, reply.logprobs, reply.top or ()))
        return [Written(id_, name, one) for id_, one in zip(reply.tokens, told, strict=True)]

    def _report(self) -> None:
        self._session.decision = {
            "by": self._by,
            "threshold": self._threshold,
            "tokens": dict(self._counts),
            **({} if self._router is None else {"router": self._router.version}),
        }
