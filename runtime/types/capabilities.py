"""What an engine can do, as its configuration and its description name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

Capability: TypeAlias = Literal[
    "generate", "score", "next_token", "embed", "states", "vectors", "defer", "guess"
]

MEANING: Final[Mapping[Capability, str]] = {
    "generate": "continues a text",
    "score": "logprobs of the tokens of given texts",
    "next_token": "next-token distributions, whole or the best of them",
    "embed": "the last-layer state after a text",
    "states": "the last-layer states after each token of a text",
    "vectors": "the input embeddings of tokens",
    "defer": "stops before a token that a larger member should write",
    "guess": "verifies a guessed continuation in one pass",
}

TOKEN_LEVEL: Final[frozenset[Capability]] = frozenset(
    {"generate", "score", "next_token", "embed", "states", "vectors"}
)
"""All that the engine protocol requires; ``defer`` and ``guess`` save calls where an engine has
them, and are replaced by more calls where it has not."""
