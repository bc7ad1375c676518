"""Request fields that no method supports. A value that would have an effect is refused, a value
without effect passes, and unknown keys are ignored and listed in ``ignored_params``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from deployments.http.openai.requests import ChatRequest, CompletionRequest, OpenAIRequest
from runtime.errors import BadRequest

NO_EFFECT: Final[Mapping[str, tuple[Any, ...]]] = {
    "top_logprobs": (0,),
    "echo": (False,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("", "none"),
    "functions": ([],),
    "function_call": ("", "none"),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
"""Accepted values besides null, compared by value and JSON type."""

REASONS: Final[Mapping[str, str]] = {
    "echo": "chat completions have no prompt text to repeat; use /v1/completions",
    "top_logprobs": "/v1/completions takes the number of alternatives under logprobs",
    "logit_bias": "its keys are token ids of one tokenizer, and the members have several",
    "presence_penalty": "the methods have no token-level penalties",
    "frequency_penalty": "the methods have no token-level penalties",
}

MAX_REPORTED: Final = 64
MAX_NAME_CHARACTERS: Final = 100
REPORTED_AS_IGNORED: Final = frozenset({"presence_penalty", "frequency_penalty"})


NO_LOGPROBS: Final = "the answer has several authors and no single model's probabilities"


def check_logprobs(request: OpenAIRequest, card: Mapping[str, Any]) -> None:
    """Raises ``BadRequest`` when the model does not support the requested logprobs."""
    supports, reason = card.get("supports", {}), card.get("scoreless") or NO_LOGPROBS
    echo = isinstance(request, CompletionRequest) and request.echo
    wanted = request.alternatives is not None
    top = request.top_logprobs if isinstance(request, ChatRequest) else None
    if not supports.get("logprobs"):
        _refuse("echo with logprobs", not (wanted and echo), reason, "echo")
        _refuse("logprobs", not wanted, reason)
        _refuse("top_logprobs", not top, reason)
    if not supports.get("echo"):
        _refuse("echo with logprobs", not (wanted and echo), reason, "echo")
    if top and not wanted:
        raise BadRequest("top_logprobs needs logprobs: true", "top_logprobs")


def ignored_params(request: OpenAIRequest, n: int) -> tuple[str, ...]:
    """Names of fields without effect. Raises ``BadRequest`` for a field that is not supported."""
    ignored = []
    for name, value in (request.model_extra or {}).items():
        if value is None:
            continue
        if name == "best_of":
            _refuse(name, value == n, "all n choices are returned; none is left out")
        elif name in NO_EFFECT:
            allowed = any(_same(value, accepted) for accepted in NO_EFFECT[name])
            _refuse(name, allowed, REASONS.get(name, "no method supports it"))
            if name in REPORTED_AS_IGNORED:
                ignored.append(name)
        else:
            ignored.append(name)
    if request.stream_options is not None:
        if not request.stream:
            ignored.append("stream_options")
        ignored += _sent("stream_options", request.stream_options.model_extra)
    if isinstance(request, ChatRequest):
        ignored += _message_extras(request)
    return _bounded(list(dict.fromkeys(ignored)))


def _bounded(ignored: list[str]) -> tuple[str, ...]:
    """Bounds number and length of the names, since summaries and traces hold them."""
    named = [
        name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:MAX_NAME_CHARACTERS]}…"
        for name in ignored
    ]
    more = len(named) - MAX_REPORTED
    return (*named[:MAX_REPORTED], *([f"… and {more} more"] if more > 0 else ()))


def _message_extras(request: ChatRequest) -> list[str]:
    ignored = []
    for number, message in enumerate(request.messages):
        extra = message.model_extra or {}
        for calls in ("tool_calls", "function_call"):
            if extra.get(calls):
                raise BadRequest(
                    f"{calls} is not supported: the members read text only",
                    f"messages[{number}].{calls}",
                    "unsupported_content",
                )
        ignored += _sent("messages[]", extra)
    return ignored


def _sent(where: str, extra: Mapping[str, Any] | None) -> list[str]:
    empty: tuple[Any, ...] = (None, "", [], {})
    return [f"{where}.{name}" for name, value in (extra or {}).items() if value not in empty]


def _same(value: Any, other: Any) -> bool:
    """Equality as in JSON: ``false`` is not 0."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _refuse(name: str, allowed: bool, reason: str, param: str | None = None) -> None:
    if not allowed:
        message = f"{name} is not supported: {reason}"
        raise BadRequest(message, param or name, "unsupported_parameter")
