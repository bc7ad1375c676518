"""Request bodies. Checked strictly where a field is honoured; every other top-level key is kept in
``model_extra``, for ``refusals`` to judge."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from runtime.errors import BadRequest
from runtime.types.query import Budget

MAX_STOPS: Final = 4
MAX_STOP_CHARACTERS: Final = 4096
"""Every call to a member carries the stop strings."""
MAX_TOP_CHAT: Final = 20
MAX_TOP_COMPLETION: Final = 5
MAX_TOKEN_ID: Final = 2**31 - 1
MAX_LIMIT: Final = 2**31 - 1

Prompt: TypeAlias = str | tuple[int, ...]
"""Text, or token ids of the reporting member."""


def _content(value: Any) -> str:
    """Text of a message; several text parts become lines."""
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
    """The four forms of a prompt as a list of prompts."""
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


def _without_calls(schema: dict[str, Any]) -> None:
    """Members read text only, so what is a call must be empty (``refusals``)."""
    for name in ("tool_calls", "function_call"):
        schema["properties"][name] = {"enum": [None, [], {}, ""]}


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra=_without_calls)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = ""


def _both_names(schema: dict[str, Any]) -> None:
    schema["properties"] |= {f"max_{name}": it for name, it in schema["properties"].items()}


class BudgetOptions(BaseModel):
    """The limits of a request under their configuration names or with ``max_`` before them."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_both_names)

    calls: int | None = Field(
        default=None, ge=1, le=MAX_LIMIT, validation_alias=AliasChoices("calls", "max_calls")
    )
    tokens: int | None = Field(
        default=None, ge=1, le=MAX_LIMIT, validation_alias=AliasChoices("tokens", "max_tokens")
    )
    cost: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, validation_alias=AliasChoices("cost", "max_cost")
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        validation_alias=AliasChoices("seconds", "max_seconds"),
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        """Here, since pydantic would list every unknown key, and a body has room for many."""
        for key in value if isinstance(value, dict) else ():
            name = key.removeprefix("max_")
            if name not in cls.model_fields:
                raise PydanticCustomError(
                    "invalid_value",
                    "there is no such limit; there are: {known}, also with max_ before them",
                    {"key": key, "known": ", ".join(cls.model_fields)},
                )
            if key != name and name in value:
                raise PydanticCustomError(
                    "invalid_value",
                    "{name} and max_{name} are the same limit; give one",
                    {"name": name, "key": key},
                )
        return value

    def budget(self) -> Budget:
        return Budget(self.calls, self.tokens, self.cost, self.seconds)


class EnsembleOptions(BaseModel):
    """Our own object in the body: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    members: Annotated[list[str], Field(min_length=1, fail_fast=True)] | None = Field(
        default=None, json_schema_extra={"uniqueItems": True}
    )
    budget: BudgetOptions | None = None
    threshold: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    trace: Literal["none", "summary", "full"] | None = None
    resumable: bool | None = None
    resume: str | None = Field(default=None, max_length=1024)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        for key in value if isinstance(value, dict) else ():
            if key not in cls.model_fields:
                raise PydanticCustomError(
                    "unsupported_parameter",
                    "ensemble.{key} is not supported; supported: {known}",
                    {"key": key, "known": ", ".join(cls.model_fields)},
                )
        return value


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool | None = None


class Asked(BaseModel):
    """What both endpoints take. ``null`` always means absent."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    n: int | None = Field(default=None, ge=1)
    stop: Stop = ()
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    priority: int | None = Field(default=None, ge=0, lt=2**31)
    ensemble: EnsembleOptions | None = None

    @property
    def options(self) -> EnsembleOptions:
        return self.ensemble or EnsembleOptions()

    @property
    def limit(self) -> int | None:
        """Tokens to write."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """Most probable tokens to tell with each token; ``None``: no logprobs are wanted."""
        return None


class ChatRequest(Asked):
    # A body has room for a million wrong messages, and to list each takes seconds.
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_CHAT)

    @property
    def alternatives(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None


def _or_false(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"const": False})


class CompletionRequest(Asked):
    prompt: Prompts
    max_tokens: int | None = Field(default=None, ge=0, le=MAX_LIMIT)
    echo: bool | None = None
    logprobs: Annotated[
        int | None, BeforeValidator(lambda value: None if value is False else value)
    ] = Field(default=None, ge=0, le=MAX_TOP_COMPLETION, json_schema_extra=_or_false)

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    @model_validator(mode="after")
    def _something(self) -> CompletionRequest:
        if self.limit == 0 and not self.echo:
            raise PydanticCustomError(
                "invalid_value",
                "max_tokens 0 writes nothing: with echo the prompt comes back, and with logprobs "
                "its score; else ask for at least 1 token",
                {"param": "max_tokens"},
            )
        return self


RequestT = TypeVar("RequestT", bound=Asked)

OUR_CODES: Final = frozenset({"unsupported_content", "unsupported_parameter", "invalid_type"})
_ESCAPES = re.compile(
    r"(?<!\\)(?P<before>(?:\\\\)*+)"  # backslashes that are escaped themselves
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: one character
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)


def parse(form: type[RequestT], body: bytes) -> RequestT:
    """The body as ``form``; ``BadRequest`` naming the first field that is wrong.

    Escaped lone surrogates, which are no characters and which tokenizers refuse, become U+FFFD.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8", code="invalid_json") from None
    text = _ESCAPES.sub(_replaced, text)
    try:
        return form.model_validate_json(text)
    except ValidationError as invalid:
        raise _bad_request(invalid) from None


def _replaced(found: re.Match[str]) -> str:
    return found["before"] + "\\ufffd" if found["lone"] else found[0]


def _bad_request(invalid: ValidationError) -> BadRequest:
    errors = invalid.errors(include_url=False, include_input=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not JSON: {first['msg']}", code="invalid_json")
    if first["type"] == "model_type" and not first["loc"]:
        return BadRequest("the body is not a JSON object", code="invalid_json")
    param = _path(first["loc"]) or first.get("ctx", {}).get("param")
    if "key" in first.get("ctx", {}):
        param = f"{param}.{first['ctx']['key']}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    code = first["type"] if first["type"] in OUR_CODES else "invalid_value"
    if first["type"] == "missing":
        code = "missing_required_parameter"
    return BadRequest(f"{param}: {first['msg']}{more}" if param else first["msg"], param, code)


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")
