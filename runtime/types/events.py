"""What a coordinator tells while it answers, and the checkpoint to resume from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from runtime.types.spans import Progress, Span, TokenChoice

StopReason: TypeAlias = Literal[
    "eos",
    "stop",
    "length",
    "context",
    "budget_calls",
    "budget_tokens",
    "budget_cost",
    "budget_time",
]


@dataclass(frozen=True, slots=True)
class MemberUsage:
    """What one member was asked and what that cost."""

    calls: int = 0
    prompt_tokens: int = 0
    """Prompt and scored tokens the member had to process: those its cache held are not counted."""
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    """Time spent waiting for this member, calls in parallel counted once each."""
    retries: int = 0

    def plus(self, other: MemberUsage) -> MemberUsage:
        return MemberUsage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=self.cost + other.cost,
            seconds=self.seconds + other.seconds,
            retries=self.retries + other.retries,
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """A member that left the session."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that another coordinator needs to go on: JSON-able through ``dataclasses.asdict``."""

    text: str = ""
    step: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)
    """The policy's own state, JSON values only."""
    spans: tuple[Span, ...] = ()
    """Empty in events, which carry one span each; whoever resumes puts together what it saw."""
    dropped: Mapping[str, Dropped] = field(default_factory=dict)
    usage: Mapping[str, MemberUsage] = field(default_factory=dict)
    elapsed: float = 0.0
    ending: StopReason | None = None
    """Set when the text is complete: only the end is left to tell."""
    reporter: str | None = None
    """Whose tokens are counted."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    warnings: tuple[str, ...] = ()
    shown: int = 0
    """Characters that were told; more may be accepted and held back."""
    before: MemberUsage = MemberUsage()
    """What all members had used when the answer was last asked for again: who asks has paid it."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Coordinator event: the prompt token by token, before anything is written."""

    tokens: tuple[TokenChoice, ...]
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Searched:
    """Coordinator event: how far a search is; another coordinator can go on from here."""

    progress: Progress
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Written:
    """Coordinator event: text that may be shown now. Never holds part of a stop string."""

    text: str
    span: Span | None
    """The span it came from; ``None`` when held-back text is released at the end."""
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Recalled:
    """Coordinator event: what an answer that is asked for again has accepted so far."""

    text: str
    """As far as it may be shown."""
    checkpoint: Checkpoint
    """With all spans."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Coordinator event: the last one."""

    finish_reason: Literal["stop", "length"]
    stop_reason: StopReason
    prompt_tokens: int
    """Of the reporting member."""
    completion_tokens: int
    """Visible tokens, by the reporting member's tokenizer."""
    summary: Mapping[str, Any]
    """The ``ensemble`` object of the answer; see docs/api.md."""


Event: TypeAlias = Scored | Recalled | Searched | Written | Ended


def sharing_checkpoint(events: Sequence[Event]) -> list[Event]:
    """Events that travel together, all with the newest checkpoint, which is then sent once."""
    newest = next((e.checkpoint for e in reversed(events) if not isinstance(e, Ended)), None)
    if newest is None:
        return list(events)
    # What was recalled keeps its own, which alone has the spans.
    own = (Ended, Recalled)
    return [e if isinstance(e, own) else replace(e, checkpoint=newest) for e in events]
