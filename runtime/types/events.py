"""Events that a coordinator sends while it answers, and the checkpoint to resume from."""

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
    """Calls, tokens and cost of one member."""

    calls: int = 0
    prompt_tokens: int = 0
    """Prompt and scored tokens that the member processed, without cached ones."""
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    """Time spent waiting for this member; parallel calls are added up."""
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
    """All state that another coordinator needs to resume; JSON-able by ``dataclasses.asdict``."""

    text: str = ""
    step: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)
    """The policy's own state, JSON values only."""
    spans: tuple[Span, ...] = ()
    """Empty in events, which carry one span each; the gateway collects them to resume."""
    dropped: Mapping[str, Dropped] = field(default_factory=dict)
    usage: Mapping[str, MemberUsage] = field(default_factory=dict)
    elapsed: float = 0.0
    ending: StopReason | None = None
    """Set when the text is complete and only ``Ended`` is left to send."""
    reporter: str | None = None
    """The member whose tokens are counted."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    warnings: tuple[str, ...] = ()
    shown: int = 0
    """Characters already sent; more may be accepted and held back."""
    before: MemberUsage = MemberUsage()
    """Usage of all members when the answer was last requested again; already charged."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Coordinator event: the prompt token by token, before anything is written."""

    tokens: tuple[TokenChoice, ...]
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Searched:
    """Coordinator event: progress of a search; another coordinator can resume from here."""

    progress: Progress
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Written:
    """Coordinator event: text that may be sent now; never part of a stop string."""

    text: str
    span: Span | None
    """The span it came from; ``None`` when held-back text is released at the end."""
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Recalled:
    """Coordinator event: the text accepted so far of an answer that is requested again."""

    text: str
    """The part that may be sent."""
    checkpoint: Checkpoint
    """Includes all spans."""


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
    """Events of one message, all with the newest checkpoint, so that it is serialised once."""
    newest = next((e.checkpoint for e in reversed(events) if not isinstance(e, Ended)), None)
    if newest is None:
        return list(events)
    # ``Recalled`` keeps its own checkpoint, the only one with all spans.
    own = (Ended, Recalled)
    return [e if isinstance(e, own) else replace(e, checkpoint=newest) for e in events]
