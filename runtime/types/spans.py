"""What a method writes: spans with their authors, tokens with their alternatives, progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """One token of a text, as the method chose it or judges it."""

    data: bytes
    """Its exact bytes, which may be part of a character; ``b""`` for the end of the answer."""
    logprob: float | None
    """Under the distribution that the method chooses from, at temperature 1; ``None`` for the first
    token of a scored text, which nothing stands before."""
    top: tuple[tuple[bytes, float], ...] = ()
    """The most probable tokens there with their logprobs, best first, as many as were asked for."""
    choices: Mapping[str, bytes] = field(default_factory=dict)
    """Member -> the token it holds most probable there."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Member -> its say in this token; empty where the method weighs nothing."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the answer, accepted for good."""

    text: str
    author: str
    """The member that wrote it."""
    step: int
    scores: Mapping[str, float] = field(default_factory=dict)
    """The candidates' values in this round, by author; in what direction is the method's."""
    weights: Mapping[str, float] | None = None
    final: bool = False
    """The author ended the answer here with its EOS."""
    tokens: tuple[TokenChoice, ...] = ()
    """The span token by token, by methods that choose tokens; a final one may end with ``b""``."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a method tells while it searches and has written nothing yet."""

    done: int
    total: int
    """At most so many of the same; a search may end earlier."""
    found: Mapping[str, float] = field(default_factory=dict)
    """More figures, by the method's own names."""


def packed(token: TokenChoice) -> dict[str, Any]:
    return {
        "data": token.data.decode("latin-1"),
        "logprob": token.logprob,
        "top": [[data.decode("latin-1"), logprob] for data, logprob in token.top],
        "choices": {name: data.decode("latin-1") for name, data in token.choices.items()},
        "weights": dict(token.weights),
    }


def unpacked(token: Mapping[str, Any]) -> TokenChoice:
    return TokenChoice(
        data=token["data"].encode("latin-1"),
        logprob=token["logprob"],
        top=tuple((data.encode("latin-1"), logprob) for data, logprob in token["top"]),
        choices={name: data.encode("latin-1") for name, data in token["choices"].items()},
        weights=dict(token["weights"]),
    )
