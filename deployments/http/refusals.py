"""Fields that no method here can honour. A value that asks for something is refused, one that asks
for nothing passes, and keys that are none of ours are ignored and told: nothing is dropped in
silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from deployments.http.openai_schema import Asked, ChatAsked
from runtime.errors import BadRequest

ASKS_NOTHING: Final[Mapping[str, Callable[[Any], bool]]] = {
    "logprobs": lambda value: value is False,
    "top_logprobs": lambda value: value == 0,
    "echo": lambda value: value is False,
    "logit_bias": lambda value: value == {},
    "response_format": lambda value: value == {"type": "text"},
    "tools": lambda value: value == [],
    "tool_choice": lambda value: value in ("", "none"),
    "functions": lambda value: value == [],
    "function_call": lambda value: value in ("", "none"),
    "suffix": lambda value: value == "",
    "presence_penalty": lambda value: value == 0,
    "frequency_penalty": lambda value: value == 0,
}

REASONS: Final[Mapping[str, str]] = {
    "logprobs": "the answer has several authors and no single model's probabilities",
    "top_logprobs": "the answer has several authors and no single model's probabilities",
    "logit_bias": "its keys are token ids of one tokenizer, and the members have several",
    "presence_penalty": "the methods have no token-level penalties",
    "frequency_penalty": "the methods have no token-level penalties",
}

TOLD_AS_IGNORED: Final = frozenset({"presence_penalty", "frequency_penalty"})


def ignored_params(asked: Asked, n: int) -> tuple[str, ...]:
    """Names of what was sent and has no effect; ``BadRequest`` for what would be missed."""
    ignored = []
    for name, value in (asked.model_extra or {}).items():
        if value is None:
            continue
        if name == "best_of":
            _refuse(name, value == n, "all n choices are returned; none is left out")
        elif name in ASKS_NOTHING:
            _refuse(name, ASKS_NOTHING[name](value), REASONS.get(name, "no method here has it"))
            if name in TOLD_AS_IGNORED:
                ignored.append(name)
        else:
            ignored.append(name)
    if asked.stream_options is not None:
        if not asked.stream:
            ignored.append("stream_options")
        ignored += _sent("stream_options", asked.stream_options.model_extra)
    if isinstance(asked, ChatAsked):
        ignored += _message_extras(asked)
    return tuple(dict.fromkeys(ignored))


def _message_extras(asked: ChatAsked) -> list[str]:
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


def _refuse(name: str, harmless: bool, reason: str) -> None:
    if not harmless:
        raise BadRequest(f"{name} is not supported: {reason}", name, "unsupported_parameter")
