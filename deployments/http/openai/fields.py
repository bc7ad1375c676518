"""Field types of request bodies: message content, stop strings and prompts, each with its
validator and its JSON schema."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_STOPS: Final = 4
MAX_STOP_CHARACTERS: Final = 4096
"""Bounded, since every call to a member carries the stop strings."""
MAX_TOKEN_ID: Final = 2**31 - 1

Prompt: TypeAlias = str | tuple[int, ...]
"""Text, or token ids of the reporting member."""


def _content(value: Any) -> str:
    """The text of a message. Several text parts are joined by newlines."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise PydanticCustomError("invalid_type", "content is a string, a list of parts, or null")
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise PydanticCustomError(
                "unsupported_content", "only text parts are supported: the members read text only"
            )
        if not isinstance(part.get("text"), str):
            raise PydanticCustomError("invalid_type", "a text part needs a string under 'text'")
        texts.append(part["text"])
    return "\n".join(texts)


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise PydanticCustomError("invalid_type", "stop is a string, a list of strings, or null")
    if len(stops) > MAX_STOPS:
        raise PydanticCustomError("invalid_value", "stop holds more than 4 strings")
    if any(len(stop) > MAX_STOP_CHARACTERS for stop in stops):
        raise PydanticCustomError("invalid_value", "a stop string has more than 4096 characters")
    if "" in stops:
        raise PydanticCustomError("invalid_value", "an empty stop string would end every answer")
    return tuple(stops)


def _prompts(value: Any) -> tuple[Prompt, ...]:
    """The four forms of ``prompt`` as a tuple of prompts."""
    if isinstance(value, str) or _are_ids(value):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(p, str) or _are_ids(p) for p in value):
        raise PydanticCustomError(
            "invalid_type",
            "prompt is a string, a list of strings, a list of token ids, or a list of such lists",
        )
    if len({type(prompt) for prompt in value}) > 1:
        raise PydanticCustomError("invalid_type", "prompts are all text or all token ids")
    if not value or not all(value):
        raise PydanticCustomError("invalid_value", "an empty prompt cannot be continued")
    return tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= MAX_TOKEN_ID for item in value
    )


PARTS: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}
Content: TypeAlias = Annotated[
    str,
    PlainValidator(_content),
    WithJsonSchema({"anyOf": [{"type": "string"}, PARTS, {"type": "null"}]}),
]
STOP: Final = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
Stop: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(_stop),
    WithJsonSchema(
        {"anyOf": [STOP, {"type": "array", "items": STOP, "maxItems": MAX_STOPS}, {"type": "null"}]}
    ),
]
TEXT: Final = {"type": "string", "minLength": 1}
IDS: Final = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID},
    "minItems": 1,
}
Prompts: TypeAlias = Annotated[
    tuple[Prompt, ...],
    PlainValidator(_prompts),
    WithJsonSchema(
        {"anyOf": [TEXT, IDS, *({"type": "array", "items": i, "minItems": 1} for i in (TEXT, IDS))]}
    ),
]
