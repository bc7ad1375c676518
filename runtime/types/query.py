"""A request: messages, budget, sampling parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one request; ``None`` is no limit. A request can only narrow its ensemble's."""

    calls: int | None = None
    tokens: int | None = None
    """Tokens that members process or write, without cached ones."""
    cost: float | None = None
    seconds: float | None = None

    def narrow(self, other: Budget) -> Budget:
        """The lower limit of both, field by field."""

        def tighter(a: Any, b: Any) -> Any:
            return b if a is None else a if b is None else min(a, b)

        return Budget(
            calls=tighter(self.calls, other.calls),
            tokens=tighter(self.tokens, other.tokens),
            cost=tighter(self.cost, other.cost),
            seconds=tighter(self.seconds, other.seconds),
        )


@dataclass(frozen=True, slots=True)
class Query:
    """One answer to generate. The gateway makes one query for each choice of a request."""

    id: str
    """Trace id."""
    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    """Text to continue; used instead of ``messages`` by /v1/completions."""
    prompt_ids: tuple[int, ...] | None = None
    """``prompt`` as token ids of the reporting member, if sent so; that member reads exactly
    these."""
    score_prompt: bool = False
    """Also score the prompt's tokens, in a ``Scored`` event."""
    max_tokens: int | None = None
    """Counted in tokens of the reporting member; 0 writes nothing."""
    temperature: float | None = None
    """``None``: the default of the method."""
    top_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    priority: int = 0
    """Lower is served first, by engines that schedule by priority."""
    members: tuple[str, ...] | None = None
    """A subset of the ensemble's members, in the ensemble's order."""
    budget: Budget = Budget()
    trace: Literal["none", "summary", "full"] = "summary"
    logprobs: int | None = None
    """Alternatives to return with each token; ``None``: no logprobs."""
    threshold: float | None = None
    """Deferral threshold of methods that have one; ``None``: as configured."""
    left: Budget = Budget()
    """Tokens and cost that may still be spent; for an answer that is requested again, beyond the
    usage already recorded."""
    again: bool = False
    """The client may already have received a part of this answer; it resumes from the newest
    checkpoint that is still stored."""
    request_id: str = ""
    """The client's own id of the request, for logs and traces."""
    traceparent: str = ""
    """The gateway's activity, if recorded (runtime/observability/tracing.py)."""
    caller: str | None = None
    """The name of the API key; ``None`` where no keys are configured."""
