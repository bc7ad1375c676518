"""What has been written so far for one request, and what is told about it at the end. Streamed and
whole replies take their figures from here, so they agree."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.http.openai.exchange import Exchange
from deployments.http.openai.logprobs import Told, Waiting, placed
from runtime.types.events import Ended, Event, Recalled, Scored, Written
from runtime.types.spans import TokenChoice


@dataclass(slots=True)
class Choice:
    """One answer; moments are seconds since the request came."""

    texts: list[str] = field(default_factory=list)
    shown: int = 0
    """Characters."""
    waiting: Waiting = field(default_factory=Waiting)
    prompt: list[Told] = field(default_factory=list)
    tokens: list[Told] = field(default_factory=list)
    """Of the answer, as far as its text is shown."""
    streamed: int = 0
    """Tokens that chunks have told, the prompt's included."""
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
                choice.prompt = placed(tokens, self.prompt(index))
            case Written(text=text) | Recalled(text=text):
                choice.texts.append(text)
                choice.shown += len(text)
                spans = event.checkpoint.spans if isinstance(event, Recalled) else (event.span,)
                for span in filter(None, spans):
                    choice.waiting.add(span)
                self._tell(index, choice.waiting.due(choice.shown))
                if choice.first_at is None and text:
                    choice.first_at = now
            case Ended():
                choice.ended, choice.ended_at = event, now
                self._tell_end(index)

    def _tell(self, index: int, told: list[Told]) -> None:
        """Not more than the tokens asked for where a score's reader counts them: a text may be so
        many canonical tokens and be written in more."""
        query, tokens = self._exchange.queries[index], self._choices[index].tokens
        limit = query.max_tokens if query.score_prompt else None
        tokens += told if limit is None else told[: max(limit - len(tokens), 0)]

    def _tell_end(self, index: int) -> None:
        """After a scored prompt the end of the answer is told too, and one token at least."""
        query, choice = self._exchange.queries[index], self._choices[index]
        if query.score_prompt:
            end = choice.waiting.end or (None if choice.tokens else TokenChoice(b"", None))
            self._tell(index, [] if end is None else [Told(choice.shown, end)])

    def prompt(self, index: int) -> str:
        """The text that stands before the answer in the reply."""
        return self._exchange.queries[index].prompt or "" if self._exchange.echo else ""

    def text(self, index: int) -> str:
        return self.prompt(index) + "".join(self._choices[index].texts)

    def told(self, index: int, since: int = 0) -> list[Told] | None:
        """The tokens of the reply's text from number ``since`` on; ``None`` when nobody asked."""
        if self._exchange.queries[index].logprobs is None:
            return None
        choice, before = self._choices[index], len(self.prompt(index))
        own = choice.tokens[max(since - len(choice.prompt), 0) :]
        return [*choice.prompt[since:], *(Told(before + at, token) for at, token in own)]

    def fresh(self, index: int) -> list[Told] | None:
        """Those that no chunk has told; from now on one has."""
        choice = self._choices[index]
        told = self.told(index, choice.streamed)
        choice.streamed += len(told or ())
        return told

    def ended(self, index: int) -> Ended:
        """How an answer that has ended has ended."""
        ended = self._choices[index].ended
        assert ended is not None
        return ended

    def usage(self) -> dict[str, Any]:
        """What the caller received: each prompt counted once, and all visible tokens."""
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
        """The ``ensemble`` object of the whole reply. Several choices are summed up, with each
        one's own object under ``choices``."""
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
        """What ``GET /v1/traces/{id}`` shows."""
        exchange = self._exchange
        head = {"id": exchange.trace_id, "object": "ensemble.trace", "created": exchange.created}
        head |= {"model": exchange.model, "stream": exchange.stream}
        head |= {"request_id": exchange.queries[0].request_id}
        return {**head, **error} if error else {**head, "ensemble": self.summary()}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _summed(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers added up, the rest as the first part has it."""
    total: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, int | float) and key in total:
                total[key] += value
            else:
                total.setdefault(key, value)
    return total
