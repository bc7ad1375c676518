"""ABE: "Token-level Ensembling of Models with Different Vocabularies" (arXiv 2502.21265)

Every member writes its own tokens; they must agree on the text. All members' texts are prefixes of
one common text, the longest of them. At each step the members that are behind it, or all when none
is, offer their next tokens, and the combination with the highest weighted sum of mean logprobs
whose texts still agree is written. A member that is ahead waits. The answer ends when all have
ended at the same text. No vocabulary is mapped to another, and members read their own spelling.

Sampled: members draw in order, each among its tokens that agree with the common text so far, with
noise keyed by step and text; weights have no effect.

Deviations: the paper searches with a beam of 5 and returns the text at the end; here one hypothesis
is kept, so that the text streams. The paper explores the cross product of the members' tokens best
first and stops after 10,000 combinations; here the best is computed directly. Where no tokens agree
(a vocabulary without single bytes), the most confident member writes and the others read its token
as text.

Cost: one call to each member that is not waiting, for each token.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from policies.base import Need, Policy
from policies.token.fusion.rows import Fused
from policies.token.fusion.sampling import SamplingParams, choose
from policies.token.numerics.agreement import Hypothesis, Offer, active, agree, may_follow
from runtime.config.ensembles import PolicyConfig
from runtime.errors import ContextOverflow
from runtime.rng import END, token_keys
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Draft
from runtime.text.pieces import Cover, spell
from runtime.types.outputs import ALL, Distribution
from runtime.types.spans import Span

LONG: Final = 256
"""Offered tokens of all members beyond which the search runs in a thread, since it takes
milliseconds."""


class ABEConfig(PolicyConfig):
    type: Literal["abe"] = "abe"
    weights: dict[str, float] = {}
    """Each member's weight; 1 for those not named."""
    top_k: int = Field(64, ge=1)
    """Tokens that a member offers; where none agree, all tokens are requested."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _known_members(self) -> ABEConfig:
        for name in self.weights:
            if name not in self.members:
                raise ValueError(f"weights: {name!r} is not among {', '.join(self.members)}")
        if any(weight <= 0 for weight in self.weights.values()):
            raise ValueError(
                "weights: must be above 0, since every member has to agree; leave other members out"
            )
        return self


class ABE(Policy[ABEConfig]):
    """Members agree on bytes."""

    level: ClassVar[str] = "token"
    needs: ClassVar[tuple[Need, ...]] = (Need("next_token"),)
    paper: ClassVar[str] = "2502.21265"
    title: ClassVar[str] = "ABE"
    no_logprobs_reason: ClassVar[str] = (
        "agreement-based members each have a distribution over their own tokens and share none"
    )

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        agreement = _Agreement(session, self.config)
        while session.ending is None:
            span = await agreement.step()
            if span is not None:
                yield span


class _Agreement:
    """One request; its state is the session's, so that another coordinator can resume."""

    def __init__(self, session: Session, config: ABEConfig) -> None:
        self._session, self._config = session, config
        query = session.query
        self._params = SamplingParams(
            config.temperature if query.temperature is None else query.temperature,
            config.top_p if query.top_p is None else query.top_p,
            query.seed,
        )
        state: dict[str, Any] = session.state
        state.setdefault("text", "")
        state.setdefault("ids", {name: [] for name in session.live})
        state.setdefault("hypotheses", {n: asdict(Hypothesis(0, 0, 0.0)) for n in session.live})
        state.setdefault("steps", 0)
        self._state = state
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decoder.decode(self._text)

    @property
    def _text(self) -> bytes:
        """The common text, as bytes."""
        text: str = self._state["text"]
        return text.encode("latin-1")

    async def step(self) -> Span | None:
        """Every active member writes a token; ``None`` when that completes no character."""
        text = self._text
        known = self._hypotheses()
        names = active(known, len(text))
        if not names:
            return self._commit("", next(iter(self._session.live)), final=True)
        for top_k in (self._config.top_k, ALL):
            rows = await self._session.each(lambda member, k=top_k: self._request(member, k), names)  # type: ignore[misc]
            names = [name for name in names if name in rows]
            if not names:
                return None  # all of them failed; the remaining members continue
            rests = {name: text[known[name].length :] for name in names}
            if sum(len(row.logprobs) for row in rows.values()) > LONG:
                offers, chosen = await asyncio.to_thread(self._decide, rows, rests, known)
            else:
                offers, chosen = self._decide(rows, rests, known)
            if chosen is not None:
                return self._write(offers, rests, chosen)
        return self._lead(offers, rests)

    def _decide(
        self,
        rows: Mapping[str, Distribution],
        rests: Mapping[str, bytes],
        known: Mapping[str, Hypothesis],
    ) -> tuple[dict[str, Offer], dict[str, int] | None]:
        """Each member's offer, and the index of its token in it; ``None`` when none agree."""
        closed = any(h.ended for h in known.values())
        offers = {name: self._offer(name, rows[name], rests[name], closed) for name in rests}
        if self._params.temperature > 0:
            return offers, self._drawn(offers, rests)
        weights = {name: self._config.weights.get(name, 1.0) for name in rests}
        return offers, agree(offers, rests, known, weights)

    def _hypotheses(self) -> dict[str, Hypothesis]:
        """Of the live members."""
        stored = self._state["hypotheses"]
        return {name: Hypothesis(**stored[name]) for name in self._session.live}

    async def _request(self, member: Member, top_k: int) -> Distribution:
        prompt = [*member.context.prompt_ids, *self._state["ids"][member.name]]
        limit = member.connection.spec.context_length
        if len(prompt) >= limit:
            raise ContextOverflow(member.name, len(prompt), limit)
        rows = await member.rows(Cover(prompt, [[]], {0: (0, 0)}), top_k)
        return rows[0]

    def _offer(self, name: str, row: Distribution, rest: bytes, closed: bool) -> Offer:
        """A member's tokens that may follow, best first."""
        member = self._session.live[name]
        table = member.connection.tokenizer.token_bytes
        eos = set(member.connection.spec.eos_ids)
        ids = row.ids
        if ids is None:
            ids = np.lexsort((np.arange(len(row.logprobs)), -row.logprobs))
            logprobs = row.logprobs[ids]
        else:
            logprobs = row.logprobs
        places, tokens, ended = [], [], False
        for place, token in enumerate(ids.tolist()):
            is_end = token in eos
            data = END if is_end else table[token] if token < len(table) else END
            if is_end and (ended or self._session.query.ignore_eos) or not is_end and not data:
                continue  # one end suffices, and control tokens have no text
            if may_follow(data, rest, closed):
                places.append(place)
                tokens.append(data)
                ended |= is_end
        return Offer(ids[places], tokens, logprobs[places].astype(np.float64))

    def _drawn(
        self, offers: Mapping[str, Offer], rests: Mapping[str, bytes]
    ) -> dict[str, int] | None:
        """Draws for one member after the other, each agreeing with those before."""
        chosen: dict[str, int] = {}
        more, ended = b"", False  # the common text beyond the text so far
        for name, offer in offers.items():
            rest = rests[name] + more
            closed = ended
            agreeing = [
                place
                for place, token in enumerate(offer.tokens)
                if may_follow(token, rest, closed) and not (token == END and more)
            ]
            if not agreeing:
                return None
            places = np.asarray(agreeing, dtype=np.int64)
            keys = token_keys(offer.tokens[place] for place in agreeing)
            row = Fused(np.arange(len(agreeing)), offer.logprobs[places])
            place = agreeing[choose(row, self._params, self._state["steps"], keys)]
            chosen[name] = place
            token = offer.tokens[place]
            ended |= token == END
            beyond = token[len(rests[name]) :]
            more = beyond if len(beyond) > len(more) else more
        return chosen

    def _write(
        self, offers: dict[str, Offer], rests: dict[str, bytes], chosen: dict[str, int]
    ) -> Span | None:
        known = self._hypotheses()
        longest, author = b"", next(iter(chosen))
        for name, place in chosen.items():
            token = offers[name].tokens[place]
            old = known[name]
            self._state["hypotheses"][name] = asdict(
                Hypothesis(
                    old.length + len(token),
                    old.tokens + 1,
                    old.logprob + float(offers[name].logprobs[place]),
                    token == END,
                )
            )
            self._state["ids"][name].append(int(offers[name].ids[place]))
            beyond = token[len(rests[name]) :]
            if len(beyond) > len(longest):
                longest, author = beyond, name
        return self._grow(longest, author)

    def _grow(self, more: bytes, author: str) -> Span | None:
        self._state["text"] += more.decode("latin-1")
        self._state["steps"] += 1
        final = all(h.ended for h in self._hypotheses().values())
        text = self._decoder.decode(more, final=final)
        return self._commit(text, author, final) if text or final else None

    def _commit(self, text: str, author: str, final: bool) -> Span:
        return self._session.commit(Draft(author, text, (), final))

    def _lead(self, offers: dict[str, Offer], rests: dict[str, bytes]) -> Span | None:
        """No tokens agree: the most confident member writes, and the others read it as text."""
        known = self._hypotheses()
        offering = [name for name, offer in offers.items() if offer.tokens]
        span = None
        if offering:
            first = max(offering, key=lambda n: known[n].mean(float(offers[n].logprobs[0]), 1))
            span = self._write(offers, rests, {first: 0})
            offers = {name: offer for name, offer in offers.items() if name != first}
        ended = any(h.ended for h in self._hypotheses().values())
        for name in offers:
            old, rest = known[name], self._text[known[name].length :]
            ids = spell(self._session.live[name].connection.tokenizer, rest)
            self._state["ids"][name] += ids
            hypothesis = Hypothesis(len(self._text), old.tokens + len(ids), old.logprob, ended)
            self._state["hypotheses"][name] = asdict(hypothesis)
        self._session.warnings.append(
            f"{', '.join(offers)} have no tokens that agree with the others' at step "
            f"{self._state['steps']}; they read the text in their own spelling"
        )
        return span
