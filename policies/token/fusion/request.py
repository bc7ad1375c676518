"""One request's tokens: each member's context, and how a token is taken."""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from policies.token.fusion.config import TokenConfig
from policies.token.fusion.rows import Fused, Fuser, Row, normalised, row_of
from policies.token.fusion.sampling import SamplingParams, best
from runtime.rng import END
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Draft
from runtime.text.pieces import Ahead, PieceContext
from runtime.types.outputs import ALL, Distribution
from runtime.types.sampling import Sampling
from runtime.types.spans import Span, TokenChoice, packed, unpacked
from runtime.vocab.union import END_KEY, NO_KEY, Union

SMALL_VOCABULARY: Final = 4096
"""Vocabularies up to this size are returned whole: their rows are small next to a call's cost."""

LONGEST_WAIT: Final = 16
"""Most tokens held back until a character is complete."""

Rows = dict[int, dict[str, Row]]
"""place (counted from the round's first) -> member -> its row"""


class TokenRequest:
    """Stores the tokens in the session's state, so another coordinator can resume from them."""

    def __init__(self, session: Session, config: TokenConfig, union: Union, fuser: Fuser) -> None:
        self.session, self.config, self.union, self.fuser = session, config, union, fuser
        query = session.query
        self.params = SamplingParams(
            config.temperature if query.temperature is None else query.temperature,
            config.top_p if query.top_p is None else query.top_p,
            query.seed,
        )
        state = session.state
        state.setdefault("pieces", [])
        state.setdefault("waiting", [])
        state.setdefault("counts", {"rounds": 0, "drafted": 0, "kept": 0, "fused": 0})
        state.setdefault("fuse_seconds", 0.0)
        self._pieces: list[str] = state["pieces"]  # one character for each byte
        self.counts: dict[str, int] = state["counts"]
        pieces = [piece.encode("latin-1") for piece in self._pieces]
        self.contexts = {
            name: PieceContext(member.connection.tokenizer, member.context.prompt_ids, pieces)
            for name, member in session.live.items()
        }
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = self._decoder.decode(b"".join(pieces))
        self._waiting = [(name, unpacked(token)) for name, token in state["waiting"]]
        """Tokens since the last border of both a token and a character, with their authors; also in
        the state, for a resuming coordinator."""
        self._text = text[len(session.text) :]
        """The text of the waiting tokens, as far as its characters are complete."""
        self._detailed = query.logprobs is not None or query.trace == "full"

    @property
    def place(self) -> int:
        """The number of tokens chosen so far."""
        return len(self._pieces)

    def top_k(self, member: Member) -> int:
        """How many tokens of its distribution a member returns; EOS tokens come on top where the
        answer may not end."""
        top_k, spec = self.config.top_k, member.connection.spec
        if top_k == "all" or spec.vocab_size <= SMALL_VOCABULARY:
            return ALL
        return top_k + (len(spec.eos_ids) if self.session.query.ignore_eos else 0)

    def sampling(self, member: Member, context: Sequence[int], place: int, length: int) -> Sampling:
        """How a member drafts: as the ensemble would choose with this member alone."""
        query = self.session.query
        return Sampling(
            max_tokens=length,
            temperature=self.params.temperature,
            top_p=self.params.top_p,
            seed=self.params.seed,
            stop=query.stop if query.ignore_eos else (*query.stop, *member.stops),
            top_k=self.top_k(member),
            ignore_eos=query.ignore_eos,
            until_below=0.0 if self.config.safe is not None else self.config.sure,
            text_noise_from=len(context) - place,
        )

    def row(self, member: str, distribution: Distribution) -> Row:
        return row_of(distribution, self.union, member, no_end=self.session.query.ignore_eos)

    def ahead(self, member: str, pieces: Sequence[bytes]) -> Ahead:
        """A member's context before and after each of ``pieces``."""
        if self.config.safe is not None:
            return self.contexts[member].spelled(pieces)[0]
        return self.contexts[member].ahead(pieces)

    def borders(self, pieces: Sequence[bytes]) -> list[dict[str, bool]]:
        """Before each of ``pieces``: member -> whether one of its own tokens ends there."""
        spelled = {name: context.spelled(pieces)[1] for name, context in self.contexts.items()}
        return [
            {name: borders[place] for name, borders in spelled.items()}
            for place in range(max(len(pieces), 1))
        ]

    @property
    def voices(self) -> list[str]:
        """Members to call: those with weight, or all if none has any."""
        live = list(self.session.live)
        return [name for name in live if self.fuser.speaks(name)] or live

    async def fuse(self, rows: Mapping[str, Row], scored: int | None = None) -> Fused:
        started = time.perf_counter()
        if self.fuser.heavy:
            fused = await asyncio.to_thread(self.fuser.fuse, rows, scored)
        else:
            fused = self.fuser.fuse(rows, scored)
        self.session.state["fuse_seconds"] += time.perf_counter() - started
        self.counts["fused"] += 1
        return fused

    def own(self, row: Row) -> Fused:
        """One member's row as a fused distribution."""
        return normalised(row.keys, row.logprobs)

    def take(self, key: int, fused: Fused, rows: Mapping[str, Row]) -> None:
        """Appends a token to the text."""
        token = self.union.tokens[key]
        choice = self.choice(key, fused, rows) if self._detailed else None
        self._waiting.append((author(key, rows), choice or TokenChoice(token, None)))
        self._pieces.append(token.decode("latin-1"))
        for context in self.contexts.values():
            context.append(token)
        self._text += self._decoder.decode(token, final=key == END_KEY)
        held = bool(self._decoder.getstate()[0]) and len(self._waiting) < LONGEST_WAIT
        if key == END_KEY or (self._text and not held):
            self._commit(final=key == END_KEY)
        self.session.state["waiting"] = [[name, packed(token)] for name, token in self._waiting]

    def release(self) -> None:
        """Commits the complete characters of the waiting tokens, when no further token comes."""
        if self._text:
            self._commit(final=False)
            self.session.state["waiting"] = []

    def _commit(self, final: bool) -> None:
        """Commits the waiting tokens as one span, by the author of the last token."""
        text, self._text = self._text, ""
        name = self._waiting[-1][0]
        tokens = tuple(choice for _, choice in self._waiting) if self._detailed else ()
        self._waiting = []
        draft = Draft(author=name, text=text, logprobs=(), final=final, finish="length")
        self.session.commit(draft, tokens=tokens)

    def choice(self, key: int, fused: Fused, rows: Mapping[str, Row]) -> TokenChoice:
        """A token with ``query.logprobs`` alternatives, and each member's choice and weight."""
        tokens = self.union.tokens
        count = self.session.query.logprobs or 0
        logprobs = fused.logprobs[fused.keys == key]
        return TokenChoice(
            data=tokens[key],
            logprob=float(logprobs[0]) if len(logprobs) else float("-inf"),
            top=tuple((tokens[k], value) for k, value in best(fused, count)) if count else (),
            choices={
                name: tokens[row.best] if row.best != NO_KEY else END for name, row in rows.items()
            },
            weights=self.fuser.weights(rows),
        )


def author(key: int, rows: Mapping[str, Row]) -> str:
    """The member that gives the token the highest probability; ties: the first."""
    return max(rows, key=lambda name: rows[name].of_key(key))


def joined(session: Session, since: int) -> list[Span]:
    """The spans committed from number ``since`` on, adjacent ones of one author merged."""
    runs: list[Span] = []
    for _, group in groupby(session.spans[since:], key=lambda span: span.author):
        spans = list(group)
        tokens = tuple(token for span in spans for token in span.tokens)
        text = "".join(span.text for span in spans)
        runs.append(replace(spans[0], text=text, tokens=tokens, final=spans[-1].final))
    session.spans[since:] = runs
    return runs
