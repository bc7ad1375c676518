"""What a request asks for: messages, limits, sampling wishes."""

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
    """Limits of one request; ``None`` is no limit. A request may only narrow its ensemble's."""

    calls: int | None = None
    tokens: int | None = None
    """Tokens that members process or write beyond what their caches held."""
    cost: float | None = None
    seconds: float | None = None

    def narrow(self, other: Budget) -> Budget:
        """The tighter of both, limit by limit."""

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
    """One answer to write. The gateway makes one of these for each choice of a request."""

    id: str
    """Trace id."""
    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    """Text to continue; used instead of ``messages`` by /v1/completions."""
    prompt_ids: tuple[int, ...] | None = None
    """``prompt`` in tokens of the reporting member, where it was sent so: that member reads exactly
    these."""
    score_prompt: bool = False
    """The prompt's own tokens are to be told too, in a ``Scored`` event."""
    max_tokens: int | None = None
    """Counted in tokens of the reporting member; 0 writes nothing."""
    temperature: float | None = None
    """``None`` leaves the method its paper's setting."""
    top_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    priority: int = 0
    """Lower is served sooner, by engines that schedule by priority."""
    members: tuple[str, ...] | None = None
    """A subset of the ensemble's members, in the ensemble's order."""
    budget: Budget = Budget()
    trace: Literal["none", "summary", "full"] = "summary"
    logprobs: int | None = None
    """Alternatives to tell with each token; ``None``: the caller wants no logprobs."""
    threshold: float | None = None
    """Of methods that hand a token over where a member is not sure; ``None``: as configured."""
    left: Budget = Budget()
    """Tokens and cost that may still be spent: of an answer that is asked for again, those after
    what is known of it."""
    again: bool = False
    """Whoever asks may have been told a part of this answer before: it goes on from what is still
    known of it."""
    request_id: str = ""
    """The client's own id of the request, for logs and traces."""
    traceparent: str = ""
    """The gateway's activity, where it is recorded (runtime/observability/tracing.py)."""
    caller: str | None = None
    """The name of the key that asks; ``None`` where no keys are needed."""
