"""Request bodies. Supported fields are validated strictly; every other top-level key stays in
``model_extra``, for ``unsupported`` to accept or refuse."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from deployments.http.openai.fields import Content, Prompts, Stop
from runtime.types.query import Budget

MAX_TOP_CHAT: Final = 20
MAX_TOP_COMPLETION: Final = 5
MAX_LIMIT: Final = 2**31 - 1


def _without_calls(schema: dict[str, Any]) -> None:
    """Members read text only, so tool calls must be empty (``unsupported``)."""
    for name in ("tool_calls", "function_call"):
        schema["properties"][name] = {"enum": [None, [], {}, ""]}


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra=_without_calls)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = ""


def _both_names(schema: dict[str, Any]) -> None:
    schema["properties"] |= {f"max_{name}": it for name, it in schema["properties"].items()}


class BudgetOptions(BaseModel):
    """The budget of a request. Each limit is also accepted with the prefix ``max_``."""

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
        """Refuses the first unknown key. pydantic would list all of them, and a body holds many."""
        for key in value if isinstance(value, dict) else ():
            name = key.removeprefix("max_")
            if name not in cls.model_fields:
                raise PydanticCustomError(
                    "invalid_value",
                    "unknown limit; known limits: {known}, each also with the prefix max_",
                    {"key": key, "known": ", ".join(cls.model_fields)},
                )
            if key != name and name in value:
                raise PydanticCustomError(
                    "invalid_value",
                    "{name} and max_{name} are the same limit; send one of them",
                    {"name": name, "key": key},
                )
        return value

    def budget(self) -> Budget:
        return Budget(self.calls, self.tokens, self.cost, self.seconds)


class EnsembleOptions(BaseModel):
    """The ``ensemble`` object of a request. Unknown keys are errors."""

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


class OpenAIRequest(BaseModel):
    """Fields of both endpoints. ``null`` means that a field is not set."""

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
        """Most tokens to generate; ``None``: no limit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """Number of top alternatives to return for each token; ``None``: no logprobs."""
        return None


class ChatRequest(OpenAIRequest):
    # A body may hold a million invalid messages; listing all of them takes seconds.
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_CHAT)

    @property
    def alternatives(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None


def _or_false(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"const": False})


class CompletionRequest(OpenAIRequest):
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
    def _generates_or_echoes(self) -> CompletionRequest:
        if self.limit == 0 and not self.echo:
            raise PydanticCustomError(
                "invalid_value",
                "max_tokens 0 generates nothing: set echo to get the prompt back, with logprobs "
                "its score, or set max_tokens to at least 1",
                {"param": "max_tokens"},
            )
        return self
