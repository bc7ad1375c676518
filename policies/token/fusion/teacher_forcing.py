"""Teacher forcing: members' distributions, and the fused one, at each token of a given text."""

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
"""Tokens that members score in one call."""


Judge: TypeAlias = Callable[
    [TokenRequest, str, Sequence[bytes], Rows, Sequence[int]], Awaitable[Rows]
]
"""``TokenPolicy.judge``, which calls the members."""


@dataclass(frozen=True, slots=True)
class Place:
    """One token of the text."""

    key: int
    rows: dict[str, Row]
    """member -> its row before the token; empty where a member has no context there."""


async def teacher_force(
    judge: Judge, request: TokenRequest, pieces: Sequence[bytes], skipped: int
) -> AsyncGenerator[Place, None]:
    """The members' rows before each of ``pieces``, none for the first ``skipped``. Advances the
    contexts of ``request`` along the text."""
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
            at_place = rows.get(place, {})
            here = {name: at_place[name] for name in request.session.live if name in at_place}
            yield Place(keys[at + place], here)
        _advance(request, window)


def _advance(request: TokenRequest, pieces: Sequence[bytes]) -> None:
    for context in request.contexts.values():
        for piece in pieces:
            context.append(piece)


async def score_text(judge: Judge, request: TokenRequest) -> list[TokenChoice]:
    """The prompt's tokens in the reporting member's tokenizer, with fused logprobs.

    Every member reads the text before a token in its own tokens, as during generation. The first
    token has no logprob where some member has no BOS.

    Raises ``BadRequest`` for control tokens inside a prompt, which only one member could read, and
    when the reporting member is unavailable.
    """
    session = request.session
    name = session.prompt_ids_member
    if name not in session.live:
        raise BadRequest(
            f"{name!r}, in whose tokens the prompt is scored, is unavailable", "prompt"
        )
    reporter = session.live[name]
    ids = reporter.context.prompt_ids[session.unsent(reporter) :]
    table = reporter.connection.tokenizer.token_bytes
    pieces = [table[token] if token < len(table) else b"" for token in ids]
    choices: list[TokenChoice] = []
    if pieces and not pieces[0]:  # the caller's own BOS
        choices.append(TokenChoice(b"", None))
        del pieces[0]
    if b"" in pieces:
        raise BadRequest(
            f"token id {ids[len(choices) + pieces.index(b'')]} of {name!r} is a control token: it "
            "has no text that the other members could read; remove it",
            "prompt",
        )
    request.contexts = begin(session)
    if session.query.prompt_ids is not None:  # the sent ids are the whole context
        own = PieceContext(reporter.connection.tokenizer, ids[: len(choices)])
        request.contexts[name] = own
    alone = any(not context.ids for context in request.contexts.values())
    async for place in teacher_force(judge, request, pieces, skipped=int(alone)):
        if not place.rows:
            choices.append(TokenChoice(request.union.tokens[place.key], None))
        else:
            fused = await request.fuse(place.rows, place.key)
            choices.append(request.choice(place.key, fused, place.rows))
    return choices


def begin(session: Session) -> dict[str, PieceContext]:
    """member -> its context before any text: its BOS, if it has one."""
    return {
        name: PieceContext(
            member.connection.tokenizer, member.connection.tokenizer.encode_prompt("")
        )
        for name, member in session.live.items()
    }
