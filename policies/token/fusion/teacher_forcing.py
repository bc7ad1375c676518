"""A text that is there already: what the members, and the ensemble, say of each of its tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from policies.token.fusion.request import Rows, TokenRequest
from policies.token.fusion.rows import Row
from runtime.errors import BadRequest
from runtime.session.session import Session
from runtime.text.pieces import PieceContext
from runtime.types.spans import TokenChoice

WINDOW: Final = 64
"""Tokens that members judge in one call."""


Judge: TypeAlias = Callable[
    [TokenRequest, str, Sequence[bytes], Rows, Sequence[int]], Awaitable[Rows]
]
"""``TokenPolicy.judge``, which asks the members."""


@dataclass(frozen=True, slots=True)
class Place:
    """One token of the text."""

    key: int
    rows: dict[str, Row]
    """What the members say before it; empty where nothing stands before it."""


async def teach(
    judge: Judge, request: TokenRequest, pieces: Sequence[bytes], skipped: int
) -> AsyncGenerator[Place, None]:
    """The members' rows before each of ``pieces``, but for the first ``skipped``. The contexts of
    ``request`` go along with the text."""
    keys = [request.union.key(piece) for piece in pieces]
    for at in range(min(skipped, len(pieces))):
        _advance(request, pieces[at : at + 1])
        yield Place(keys[at], {})
    for at in range(skipped, len(pieces), WINDOW):
        window = pieces[at : at + WINDOW]
        gate, voices = request.fuser.gate, request.voices
        first = gate if gate in voices else voices[0]
        rows = await judge(request, first, window, {}, keys[at : at + WINDOW])
        for place in range(len(window)):
            told = rows.get(place, {})
            here = {name: told[name] for name in request.session.live if name in told}
            yield Place(keys[at + place], here)
        _advance(request, window)


def _advance(request: TokenRequest, pieces: Sequence[bytes]) -> None:
    for context in request.contexts.values():
        for piece in pieces:
            context.append(piece)


async def score_text(judge: Judge, request: TokenRequest) -> list[TokenChoice]:
    """The prompt's tokens, as its reporting member reads them, under the fused distribution.

    Every member reads the text before a token in its own tokens, just as when it is written. The
    first token has no logprob where some member has no BOS to begin from.

    Raises ``BadRequest`` for control tokens inside a prompt: only one member could read them.
    """
    session = request.session
    name = session.ids_of
    if name not in session.live:
        raise BadRequest(f"{name!r}, in whose tokens the prompt is scored, is not there", "prompt")
    reporter = session.live[name]
    ids = reporter.context.prompt_ids[session.unsent(reporter) :]
    table = reporter.connection.tokenizer.token_bytes
    pieces = [table[token] if token < len(table) else b"" for token in ids]
    told: list[TokenChoice] = []
    if pieces and not pieces[0]:  # the caller's own BOS
        told.append(TokenChoice(b"", None))
        del pieces[0]
    if b"" in pieces:
        raise BadRequest(
            f"token id {ids[len(told) + pieces.index(b'')]} of {name!r} is a control token: it has "
            "no text that the other members could read; leave it out",
            "prompt",
        )
    request.contexts = begin(session)
    if session.query.prompt_ids is not None:  # nothing stands before the ids that were sent
        own = PieceContext(reporter.connection.tokenizer, ids[: len(told)])
        request.contexts[name] = own
    alone = any(not context.ids for context in request.contexts.values())
    async for place in teach(judge, request, pieces, skipped=int(alone)):
        if not place.rows:
            told.append(TokenChoice(request.union.tokens[place.key], None))
        else:
            fused = await request.fuse(place.rows, place.key)
            told.append(request.choice(place.key, fused, place.rows))
    return told


def begin(session: Session) -> dict[str, PieceContext]:
    """Each member before any text: its BOS, if it has one."""
    return {
        name: PieceContext(
            member.connection.tokenizer, member.connection.tokenizer.encode_prompt("")
        )
        for name, member in session.live.items()
    }
