"""A told token as JSON values, for checkpoints; bytes are text of one character for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.types.spans import TokenChoice


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
