"""Tokens and their logprobs in OpenAI's two formats, and when a streamed token is due."""

from __future__ import annotations

import codecs
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from runtime.text.offsets import token_places
from runtime.types.spans import Span, TokenChoice

VERY_UNLIKELY: Final = -9999.0
"""What OpenAI sends for log 0: JSON has no infinity."""


class PlacedToken(NamedTuple):
    """A token, and the offset in characters at which its text starts."""

    start: int
    token: TokenChoice


class PendingTokens:
    """Tokens of one answer whose text has not been shown completely."""

    def __init__(self) -> None:
        self._tokens: deque[tuple[int, PlacedToken]] = deque()
        self._accepted = 0
        self.end: TokenChoice | None = None
        """The token that ended the answer; it has no text."""

    def add(self, span: Span) -> None:
        """Adds the tokens of an accepted span; its text may be shown later."""
        tokens = list(span.tokens)
        if span.final and tokens and not tokens[-1].data:
            self.end = tokens.pop()
        places, start = token_places(token.data for token in tokens), self._accepted
        self._tokens += [
            (start + end, PlacedToken(start + begin, token))
            for token, (begin, end) in zip(tokens, places, strict=True)
        ]
        self._accepted += len(span.text)

    def due(self, shown: int) -> list[PlacedToken]:
        """Removes and returns the tokens within the first ``shown`` characters of the answer."""
        tokens = []
        while self._tokens and self._tokens[0][0] <= shown:
            tokens.append(self._tokens.popleft()[1])
        return tokens


def chat(tokens: Sequence[PlacedToken]) -> dict[str, Any]:
    """``logprobs`` of a chat choice."""
    content = [
        _entry(token.data, token.logprob)
        | {"top_logprobs": [_entry(data, logprob) for data, logprob in token.top]}
        for _, token in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(data: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": _text(data), "bytes": list(data), "logprob": _number(logprob)}


def completion(tokens: Sequence[PlacedToken]) -> dict[str, Any]:
    """``logprobs`` of a completions choice."""
    return {
        "tokens": [_text(token.data) for _, token in tokens],
        "token_logprobs": [_number(token.logprob) for _, token in tokens],
        "top_logprobs": [_alternatives(token) for _, token in tokens],
        "text_offset": [start for start, _ in tokens],
    }


def _alternatives(token: TokenChoice) -> dict[str, float | None] | None:
    """Text -> logprob, the token itself included. Of tokens with equal text the best counts."""
    if token.logprob is None:
        return None
    alternatives: dict[str, float | None] = {}
    for data, logprob in (*token.top, (token.data, token.logprob)):
        alternatives.setdefault(_text(data), _number(logprob))
    return alternatives


def place_tokens(tokens: Sequence[TokenChoice], text: str) -> list[PlacedToken]:
    """Places the tokens of a prompt in its ``text``.

    Control tokens have no bytes, though the text may spell them out. The first token may begin with
    a space that the text lacks, as SentencePiece does.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    start, passed = 0, False
    placed: list[PlacedToken] = []
    for token in tokens:
        piece = decoder.decode(token.data)
        if piece and (passed or start == 0):
            found = [i for p in (piece, piece.removeprefix(" ")) if (i := text.find(p, start)) >= 0]
            start = min(found, default=start) if passed else start
            passed = False
            if not text.startswith(piece, start):
                piece = piece.removeprefix(" ")
        passed = passed or not token.data
        placed.append(PlacedToken(start, token))
        start = min(start + len(piece), len(text))
    return placed


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _number(logprob: float | None) -> float | None:
    return logprob if logprob is None or math.isfinite(logprob) else VERY_UNLIKELY
