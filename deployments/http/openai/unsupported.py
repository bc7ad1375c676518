"""Fields that no method here can honour. A value that asks for something is refused, one that asks
for nothing passes, and keys that are none of ours are ignored and told: nothing is dropped in
silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from deployments.http.openai.requests import Asked, ChatRequest, CompletionRequest
from runtime.errors import BadRequest

ASKS_NOTHING: Final[Mapping[str, tuple[Any, ...]]] = {
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
"""The values besides null, equal and of the same JSON type."""

REASONS: Final[Mapping[str, str]] = {
    "echo": "an answer to a conversation has no text before it; /v1/completions has echo",
    "top_logprobs": "/v1/completions takes the number of alternatives under logprobs",
    "logit_bias": "its keys are token ids of one tokenizer, and the members have several",
    "presence_penalty": "the methods have no token-level penalties",
    "frequency_penalty": "the methods have no token-level penalties",
}

MOST_TOLD: Final = 64
LONGEST_NAME: Final = 100
TOLD_AS_IGNORED: Final = frozenset({"presence_penalty", "frequency_penalty"})


SCORELESS: Final = "the answer has several authors and no single model's probabilities"


def check_logprobs(asked: Asked, card: Mapping[str, Any]) -> None:
    """``BadRequest`` where the model cannot tell the logprobs that are asked for."""
    supports, reason = card.get("supports", {}), card.get("scoreless") or SCORELESS
    echo = isinstance(asked, CompletionRequest) and asked.echo
    wanted = asked.alternatives is not None
    top = asked.top_logprobs if isinstance(asked, ChatRequest) else None
    if not supports.get("logprobs"):
        _refuse("echo with logprobs", not (wanted and echo), reason, "echo")
        _refuse("logprobs", not wanted, reason)
        _refuse("top_logprobs", not top, reason)
    if not supports.get("echo"):
        _refuse("echo with logprobs", not (wanted and echo), reason, "echo")
    if top and not wanted:
        raise BadRequest("top_logprobs needs logprobs: true", "top_logprobs")


def ignored_params(asked: Asked, n: int) -> tuple[str, ...]:
    """Names of what was sent and has no effect; ``BadRequest`` for what would be missed."""
    ignored = []
    for name, value in (asked.model_extra or {}).items():
        if value is None:
            continue
        if name == "best_of":
            _refuse(name, value == n, "all n choices are returned; none is left out")
        elif name in ASKS_NOTHING:
            harmless = any(_same(value, nothing) for nothing in ASKS_NOTHING[name])
            _refuse(name, harmless, REASONS.get(name, "no method here has it"))
            if name in TOLD_AS_IGNORED:
                ignored.append(name)
        else:
            ignored.append(name)
    if asked.stream_options is not None:
        if not asked.stream:
            ignored.append("stream_options")
        ignored += _sent("stream_options", asked.stream_options.model_extra)
    if isinstance(asked, ChatRequest):
        ignored += _message_extras(asked)
    return _told(list(dict.fromkeys(ignored)))


def _told(ignored: list[str]) -> tuple[str, ...]:
    """Bounded: summaries and traces keep the names, and a body has room for many and long ones."""
    named = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in ignored]
    more = len(named) - MOST_TOLD
    return (*named[:MOST_TOLD], *([f"… and {more} more"] if more > 0 else ()))


def _message_extras(asked: ChatRequest) -> list[str]:
    ignored = []
    for number, message in enumerate(asked.messages):
        extra = message.model_extra or {}
        for calls in ("tool_calls", "function_call"):
            if extra.get(calls):
                raise BadRequest(
                    f"{calls} cannot be shown to the members, which read text only",
                    f"messages[{number}].{calls}",
                    "unsupported_content",
                )
        ignored += _sent("messages[]", extra)
    return ignored


def _sent(where: str, extra: Mapping[str, Any] | None) -> list[str]:
    empty: tuple[Any, ...] = (None, "", [], {})
    return [f"{where}.{name}" for name, value in (extra or {}).items() if value not in empty]


def _same(value: Any, other: Any) -> bool:
    """Python takes ``False`` for 0, JSON does not."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _refuse(name: str, harmless: bool, reason: str, param: str | None = None) -> None:
    if not harmless:
        told = f"{name} is not supported: {reason}"
        raise BadRequest(told, param or name, "unsupported_parameter")
