"""Tokens and their logprobs in OpenAI's two shapes, and when a streamed token may be told."""

from __future__ import annotations

import codecs
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from runtime.text.offsets import token_places
from runtime.types.spans import Span, TokenChoice

VERY_UNLIKELY: Final = -9999.0
"""What OpenAI says for a probability of 0, which JSON has no number for."""


class Told(NamedTuple):
    """A token, and where its text begins in the answer."""

    at: int
    token: TokenChoice


class Waiting:
    """The tokens of one answer, each told once its whole text has been shown."""

    def __init__(self) -> None:
        self._tokens: deque[tuple[int, Told]] = deque()
        self._accepted = 0
        self.end: TokenChoice | None = None
        """The one that ended the answer, which has no text."""

    def add(self, span: Span) -> None:
        """Takes what was accepted; its text may be shown later."""
        tokens = list(span.tokens)
        if span.final and tokens and not tokens[-1].data:
            self.end = tokens.pop()
        places, start = token_places(token.data for token in tokens), self._accepted
        self._tokens += [
            (start + end, Told(start + begin, token))
            for token, (begin, end) in zip(tokens, places, strict=True)
        ]
        self._accepted += len(span.text)

    def due(self, shown: int) -> list[Told]:
        """Those that lie within the first ``shown`` characters and have not been told."""
        told = []
        while self._tokens and self._tokens[0][0] <= shown:
            told.append(self._tokens.popleft()[1])
        return told


def chat(told: Sequence[Told]) -> dict[str, Any]:
    """``logprobs`` of a chat choice."""
    content = [
        _entry(token.data, token.logprob)
        | {"top_logprobs": [_entry(data, logprob) for data, logprob in token.top]}
        for _, token in told
    ]
    return {"content": content, "refusal": None}


def _entry(data: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": _text(data), "bytes": list(data), "logprob": _number(logprob)}


def completion(told: Sequence[Told]) -> dict[str, Any]:
    """``logprobs`` of a completions choice."""
    return {
        "tokens": [_text(token.data) for _, token in told],
        "token_logprobs": [_number(token.logprob) for _, token in told],
        "top_logprobs": [_alternatives(token) for _, token in told],
        "text_offset": [at for at, _ in told],
    }


def _alternatives(token: TokenChoice) -> dict[str, float | None] | None:
    """Text -> logprob, the token itself included. Of tokens that read alike the best is told."""
    if token.logprob is None:
        return None
    told: dict[str, float | None] = {}
    for data, logprob in (*token.top, (token.data, token.logprob)):
        told.setdefault(_text(data), _number(logprob))
    return told


def placed(tokens: Sequence[TokenChoice], text: str) -> list[Told]:
    """The tokens of a prompt that reads ``text``.

    The text may spell out control tokens, which have no bytes. Tokens may write a first space that
    the text lacks, as SentencePiece does.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    at, passed, told = 0, False, []
    for token in tokens:
        piece = decoder.decode(token.data)
        if piece and (passed or at == 0):
            found = [i for p in (piece, piece.removeprefix(" ")) if (i := text.find(p, at)) >= 0]
            at = min(found, default=at) if passed else at
            passed = False
            if not text.startswith(piece, at):
                piece = piece.removeprefix(" ")
        passed = passed or not token.data
        told.append(Told(at, token))
        at = min(at + len(piece), len(text))
    return told


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _number(logprob: float | None) -> float | None:
    return logprob if logprob is None or math.isfinite(logprob) else VERY_UNLIKELY
