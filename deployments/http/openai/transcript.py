"""The state of one request's answers, and the summary at their end. Streamed and whole replies use
the same figures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.http.openai.exchange import Exchange
from deployments.http.openai.logprobs import PendingTokens, PlacedToken, place_tokens
from runtime.types.events import Ended, Event, Recalled, Scored, Written
from runtime.types.spans import TokenChoice


@dataclass(slots=True)
class Choice:
    """One answer. Times are seconds since the request arrived."""

    texts: list[str] = field(default_factory=list)
    shown: int = 0
    """Characters of text received so far."""
    pending: PendingTokens = field(default_factory=PendingTokens)
    prompt: list[PlacedToken] = field(default_factory=list)
    tokens: list[PlacedToken] = field(default_factory=list)
    """Tokens of the answer, as far as their text is shown."""
    streamed: int = 0
    """Tokens sent in chunks, including those of the prompt."""
    first_at: float | None = None
    ended_at: float = 0.0
    ended: Ended | None = None


class Transcript:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._choices = [Choice() for _ in exchange.queries]

    def add(self, index: int, event: Event) -> None:
        choice = self._choices[index]
        now = time.monotonic() - self._exchange.started
        match event:
            case Scored(tokens=tokens):
                choice.prompt = place_tokens(tokens, self.prompt(index))
            case Written(text=text) | Recalled(text=text):
                choice.texts.append(text)
                choice.shown += len(text)
                spans = event.checkpoint.spans if isinstance(event, Recalled) else (event.span,)
                for span in filter(None, spans):
                    choice.pending.add(span)
                self._show(index, choice.pending.due(choice.shown))
                if choice.first_at is None and text:
                    choice.first_at = now
            case Ended():
                choice.ended, choice.ended_at = event, now
                self._show_end(index)

    def _show(self, index: int, new: list[PlacedToken]) -> None:
        """With a scored prompt at most ``max_tokens`` are shown, since evaluation clients count
        them: a text may be generated in more tokens than its canonical ones."""
        query, tokens = self._exchange.queries[index], self._choices[index].tokens
        limit = query.max_tokens if query.score_prompt else None
        tokens += new if limit is None else new[: max(limit - len(tokens), 0)]

    def _show_end(self, index: int) -> None:
        """After a scored prompt the end token is shown too, and at least one token."""
        query, choice = self._exchange.queries[index], self._choices[index]
        if query.score_prompt:
            end = choice.pending.end or (None if choice.tokens else TokenChoice(b"", None))
            self._show(index, [] if end is None else [PlacedToken(choice.shown, end)])

    def prompt(self, index: int) -> str:
        """The prompt text that the reply repeats before the answer."""
        return self._exchange.queries[index].prompt or "" if self._exchange.echo else ""

    def text(self, index: int) -> str:
        return self.prompt(index) + "".join(self._choices[index].texts)

    def tokens_of(self, index: int, since: int = 0) -> list[PlacedToken] | None:
        """The tokens of the reply's text from index ``since`` on; ``None`` without logprobs."""
        if self._exchange.queries[index].logprobs is None:
            return None
        choice, before = self._choices[index], len(self.prompt(index))
        own = choice.tokens[max(since - len(choice.prompt), 0) :]
        return [*choice.prompt[since:], *(PlacedToken(before + at, token) for at, token in own)]

    def new_tokens(self, index: int) -> list[PlacedToken] | None:
        """The tokens that no chunk has sent yet; marks them as sent."""
        choice = self._choices[index]
        tokens = self.tokens_of(index, choice.streamed)
        choice.streamed += len(tokens or ())
        return tokens

    def ended(self, index: int) -> Ended:
        """The end event of a finished answer."""
        ended = self._choices[index].ended
        assert ended is not None
        return ended

    def usage(self) -> dict[str, Any]:
        """OpenAI's ``usage``: each prompt counted once, and all visible tokens."""
        ends = [self.ended(index) for index in range(len(self._choices))]
        prompt = sum(end.prompt_tokens for end in ends[:: self._exchange.n])
        completion = sum(end.completion_tokens for end in ends)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def choice_summary(self, index: int) -> dict[str, Any]:
        """The ``ensemble`` object of one answer."""
        choice = self._choices[index]
        summary = dict(self.ended(index).summary)
        if self._exchange.trace != "full":
            summary.pop("full", None)
        return {
            **summary,
            "seed": self._exchange.queries[index].seed,
            "latency_ms": {
                **summary.get("latency_ms", {}),
                "total": _ms(choice.ended_at),
                "ttft": _ms(choice.ended_at if choice.first_at is None else choice.first_at),
            },
            "ignored_params": list(self._exchange.ignored),
        }

    def summary(self) -> dict[str, Any]:
        """The ``ensemble`` object of the whole reply. With several choices it holds their sums, and
        the object of each choice under ``choices``."""
        parts = [self.choice_summary(index) for index in range(len(self._choices))]
        if len(parts) == 1:
            return parts[0]
        return {
            **{key: parts[0].get(key) for key in ("trace_id", "method", "level", "seed")},
            "usage": _summed(part.get("usage", {}) for part in parts),
            "cost": _summed(part.get("cost", {}) for part in parts),
            "latency_ms": {
                "total": max(part["latency_ms"]["total"] for part in parts),
                "ttft": min(part["latency_ms"]["ttft"] for part in parts),
            },
            "degraded": any(part.get("degraded", False) for part in parts),
            "warnings": list(dict.fromkeys(w for part in parts for w in part.get("warnings", ()))),
            "ignored_params": list(self._exchange.ignored),
            "choices": [{"index": index, **part} for index, part in enumerate(parts)],
        }

    def trace(self, error: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The body of ``GET /v1/traces/{id}``."""
        exchange = self._exchange
        head = {"id": exchange.trace_id, "object": "ensemble.trace", "created": exchange.created}
        head |= {"model": exchange.model, "stream": exchange.stream}
        head |= {"request_id": exchange.queries[0].request_id}
        return {**head, **error} if error else {**head, "ensemble": self.summary()}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _summed(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of numbers; other values come from the first part."""
    total: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, int | float) and key in total:
                total[key] += value
            else:
                total.setdefault(key, value)
    return total
