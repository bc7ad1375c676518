"""The ``ensemble`` object of a reply, for the OpenAPI document: who wrote what, calls and cost."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Exact(BaseModel):
    """An object with these keys and no others."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Open(BaseModel):
    """An object with these keys; the method or the model may add keys."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class MemberSummary(Open):
    """One member's calls, tokens, cost and share of an answer."""

    model: str
    status: Literal["ok", "dropped"]
    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost: float
    latency_ms: float
    retries: int
    share: float
    """Fraction of the answer's characters."""
    spans: int
    error: str = ""
    """Why the member was dropped."""
    dropped_at_step: int = 0


class WrittenBy(Open):
    """The author of a range of characters (Unicode code points) of the text."""

    start: int
    end: int
    model: str
    step: int
    score: float | None = None


class Burned(Open):
    """Sums over all members."""

    model_calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int


class Cost(Exact):
    amount: float
    currency: str
    source: str


class Latency(Open):
    """Milliseconds since the gateway received the request."""

    total: int
    ttft: int


class ChoiceSummary(Open):
    """The ``ensemble`` object of one answer. Methods may add keys."""

    trace_id: str
    method: str
    level: str
    members: list[MemberSummary]
    spans: list[WrittenBy]
    steps: int
    usage: Burned
    cost: Cost
    latency_ms: Latency
    stop_reason: str
    degraded: bool
    warnings: list[str]
    seed: int
    ignored_params: list[str]
    """Request fields that had no effect."""


class NumberedSummary(ChoiceSummary):
    index: int


class ManySummary(Exact):
    """The ``ensemble`` object of several answers; usage and cost are sums."""

    trace_id: str
    method: str
    level: str
    seed: int
    usage: Burned
    cost: Cost
    latency_ms: Latency
    degraded: bool
    warnings: list[str]
    ignored_params: list[str]
    choices: list[NumberedSummary]
