"""What the contract tests know of the endpoint under test, and the calls that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openai import OpenAI

ASK = [{"role": "user", "content": "Say something long about France."}]
SAME = ("method", "level", "spans", "steps", "stop_reason", "degraded", "warnings", "seed")
"""Summary keys that are equal for equal answers, whatever the members' caches hold."""


@dataclass(frozen=True)
class Contract:
    """A running endpoint, and what the tests must know of it. With seed 7, ``model`` answers
    ``ASK`` in three spans or more."""

    url: str
    model: str
    other_model: str
    members: tuple[str, ...]
    token_ids: tuple[int, ...]
    token_text: str
    """What ``token_ids`` say."""


def tale(member: str) -> dict[str, Any]:
    """A table model that tells of its favourite animal at some length."""
    other = "dog" if member == "cat" else "cat"
    table = {
        "": {" the": 1},
        " the": {f" {member}": 3, f" {other}": 2},
        " cat": {" sat": 1},
        " dog": {" ran": 1},
        " sat": {" at": 1},
        " ran": {" at": 1},
        " at": {" home": 1},
        " home": {".": 1},
        ".": {"<eos>": 1},
    }
    words = [" the", " cat", " dog", " sat", " ran", " at", " home", "."]
    return {"engine": {"type": "table", "vocabulary": words, "table": table}}


def chat(client: OpenAI, contract: Contract, **more: Any) -> Any:
    return client.chat.completions.create(
        **{"model": contract.model, "messages": ASK, "seed": 7, **more}
    )


def lasting(summary: Any) -> Any:
    return {"keys": set(summary), **{key: summary[key] for key in SAME}}


def gathered(chunks: Any) -> tuple[str, str, Any, Any]:
    """Text, finish reason, usage and final summary of a one-choice stream."""
    text, reason, usage, summary = "", None, None, None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.finish_reason is not None:
                assert reason is None, "a choice ends once"
                reason, summary = choice.finish_reason, chunk.model_extra.get("ensemble")
    return text, reason, usage, summary
