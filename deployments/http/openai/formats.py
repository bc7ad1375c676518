"""The two reply formats: chat completions and text completions, whole or in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from deployments.http.openai import logprobs
from deployments.http.openai.exchange import Exchange
from deployments.http.openai.logprobs import PlacedToken
from deployments.http.openai.transcript import Transcript


class Form(Protocol):
    """How one endpoint writes a choice."""

    prefix: str
    """Of the reply's id, before the trace id."""
    whole: str
    """``object`` of a whole reply."""
    chunk: str
    """``object`` of a chunk."""

    def opening(self) -> dict[str, Any] | None:
        """The content of a choice's first chunk; ``None`` without an opening chunk."""
        ...

    def piece(self, text: str) -> dict[str, Any]: ...

    def closing(self) -> dict[str, Any]: ...

    def full(self, text: str) -> dict[str, Any]: ...

    def logprobs(self, tokens: Sequence[PlacedToken]) -> dict[str, Any]: ...


class ChatForm:
    prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def opening(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}}

    def piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def closing(self) -> dict[str, Any]:
        return {"delta": {}}

    def full(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def logprobs(self, tokens: Sequence[PlacedToken]) -> dict[str, Any]:
        return logprobs.chat(tokens)


class TextForm:
    prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"

    def opening(self) -> None:
        return None

    def piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def closing(self) -> dict[str, Any]:
        return {"text": ""}

    full = piece

    def logprobs(self, tokens: Sequence[PlacedToken]) -> dict[str, Any]:
        return logprobs.completion(tokens)


CHAT: Final[Form] = ChatForm()
TEXT: Final[Form] = TextForm()


def choice(
    index: int,
    content: dict[str, Any],
    finish_reason: str | None,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish_reason}


def whole(form: Form, exchange: Exchange, transcript: Transcript) -> dict[str, Any]:
    """The reply that is not streamed."""
    choices = []
    for index in range(len(exchange.queries)):
        tokens, reason = transcript.tokens_of(index), transcript.ended(index).finish_reason
        logprobs = None if tokens is None else form.logprobs(tokens)
        choices.append(choice(index, form.full(transcript.text(index)), reason, logprobs))
    reply = {**head(form, exchange, form.whole), "choices": choices, "usage": transcript.usage()}
    return reply if exchange.trace == "none" else {**reply, "ensemble": transcript.summary()}


def head(form: Form, exchange: Exchange, object: str) -> dict[str, Any]:
    """The fields that all objects of one reply share."""
    fingerprint = exchange.card.get("fingerprint")
    return {
        "id": form.prefix + exchange.trace_id,
        "object": object,
        "created": exchange.created,
        "model": exchange.model,
        "system_fingerprint": f"ens_{fingerprint}" if fingerprint else None,
    }
