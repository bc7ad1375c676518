"""Output of a method: spans with authors, tokens with alternatives, progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """One token of a text, as the method chose or scored it."""

    data: bytes
    """Exact bytes, possibly part of a character; ``b""`` for the end of the answer."""
    logprob: float | None
    """Under the distribution that the method samples from, at temperature 1; ``None`` for the first
    token of a scored text, which has no context."""
    top: tuple[tuple[bytes, float], ...] = ()
    """The most probable tokens with their logprobs, best first, as many as requested."""
    choices: Mapping[str, bytes] = field(default_factory=dict)
    """Member -> its most probable token at this position."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Member -> its weight in this token; empty for methods without weights."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the answer, finally accepted."""

    text: str
    author: str
    """The member that wrote it."""
    step: int
    scores: Mapping[str, float] = field(default_factory=dict)
    """The candidates' scores in this round, by author; the method defines their direction."""
    weights: Mapping[str, float] | None = None
    final: bool = False
    """The author ended the answer here with EOS."""
    tokens: tuple[TokenChoice, ...] = ()
    """The span's tokens, from token-level methods; a final span may end with ``b""``."""


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a search that has written no text yet."""

    done: int
    total: int
    """Upper bound of ``done``; a search may end earlier."""
    found: Mapping[str, float] = field(default_factory=dict)
    """More figures, named by the method."""


def token_to_json(token: TokenChoice) -> dict[str, Any]:
    """The token as JSON values; ``token_from_json`` is the inverse."""
    return {
        "data": token.data.decode("latin-1"),
        "logprob": token.logprob,
        "top": [[data.decode("latin-1"), logprob] for data, logprob in token.top],
        "choices": {name: data.decode("latin-1") for name, data in token.choices.items()},
        "weights": dict(token.weights),
    }


def token_from_json(token: Mapping[str, Any]) -> TokenChoice:
    """The token from the values of ``token_to_json``."""
    return TokenChoice(
        data=token["data"].encode("latin-1"),
        logprob=token["logprob"],
        top=tuple((data.encode("latin-1"), logprob) for data, logprob in token["top"]),
        choices={name: data.encode("latin-1") for name, data in token["choices"].items()},
        weights=dict(token["weights"]),
    )
