"""Reply bodies, for the OpenAPI document. ``formats``, ``streaming``, ``transcript`` and
``model_catalog`` write them; tests check every written key against these models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from deployments.http.openai.summaries import ChoiceSummary, Exact, ManySummary, Open


class TopLogprob(Exact):
    token: str
    bytes: list[int]
    logprob: float | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Exact):
    content: list[TokenLogprob]
    refusal: None


class TextLogprobs(Exact):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None]
    text_offset: list[int]


class AnswerMessage(Exact):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Exact):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextChoice(Exact):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class Delta(Exact):
    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChatChunkChoice(Exact):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class TextChunkChoice(Exact):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class TokensDetails(Exact):
    reasoning_tokens: int


class Usage(Exact):
    """Tokens that the client sees: each prompt counted once, and the completions."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: TokensDetails


class Head(Exact):
    id: str
    created: int
    model: str
    system_fingerprint: str | None
    """A hash of the ensemble's configuration."""


class Whole(Head):
    usage: Usage
    ensemble: ChoiceSummary | ManySummary | None = None
    """Left out where the request has ``ensemble.trace: none``."""


class ChatReply(Whole):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextReply(Whole):
    object: Literal["text_completion"]
    choices: list[TextChoice]


class Place(Exact):
    """The resume id of a chunk, where the request has ``ensemble.resumable``."""

    resume: str


class Origin(Exact):
    """The author of this piece of text."""

    resume: str | None = None

    model: str
    span: int
    scores: dict[str, float] = {}
    weights: dict[str, float] = {}


class Done(Open):
    """Progress of a search."""

    done: int
    total: int


class Progress(Exact):
    progress: Done
    resume: str | None = None


class Chunk(Head):
    usage: Usage | None = None
    """Sent where the request has ``stream_options.include_usage``."""
    ensemble: Origin | Progress | Place | ChoiceSummary | None = None
    """The author of a piece, or the summary at the end of a choice."""


class ChatChunk(Chunk):
    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]


class TextChunk(Chunk):
    object: Literal["text_completion"]
    choices: list[TextChunkChoice]


class ErrorBody(Exact):
    message: str
    type: Literal[
        "invalid_request_error", "rate_limit_error", "server_error", "ensemble_unavailable"
    ]
    param: str | None
    code: str | None
    members: dict[str, str] = {}
    """The state of each member, for type ``ensemble_unavailable``."""


class Error(Exact):
    error: ErrorBody


class Supports(Open):
    stream: bool
    n: bool
    logprobs: bool
    echo: bool


class Card(Open):
    """Capabilities of a model."""

    method: str
    level: str
    kind: Literal["ensemble", "member"]
    members: list[str]
    supports: Supports
    max_model_len: int
    tokenizer: str
    """The reporting member. Its tokenizer counts tokens and decodes token ids in prompts."""


class Loading(Exact):
    """Why the card of a model is not available yet."""

    state: str


class Model(Exact):
    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["orchestrion"]
    ensemble: Card | Loading


class Models(Exact):
    object: Literal["list"]
    data: list[Model]


class Trace(Exact):
    """A recent request: its summary, or the error that ended it."""

    id: str
    object: Literal["ensemble.trace"]
    created: int
    model: str
    stream: bool
    request_id: str
    """The client's ``x-request-id``, or a generated one."""
    ensemble: ChoiceSummary | ManySummary | None = None
    error: ErrorBody | None = None


class Live(Exact):
    status: Literal["live"]


class Ready(Exact):
    status: Literal["ready"]
    models: dict[str, Literal["ready"]]


REPLIES: tuple[type[BaseModel], ...] = (
    ChatReply, TextReply, ChatChunk, TextChunk, Error, Model, Models, Trace, Live, Ready,
)  # fmt: skip


def reply_models() -> list[tuple[type[BaseModel], Any]]:
    """For ``models_json_schema``. In the mode "validation", keys with a default are optional."""
    return [(reply, "validation") for reply in REPLIES]
