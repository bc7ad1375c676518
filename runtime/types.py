"""The words of the runtime: plain frozen data that travels between rooms and processes.

Logprobs are natural logs of the model's own next-token distribution (temperature 1, no
processors). Costs are in the configured currency. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from runtime.router import Router

Tokens: TypeAlias = Sequence[int]

ALL: Final = -1
"""A ``top_k`` that asks for the dense row over the whole vocabulary."""

EngineFinish: TypeAlias = Literal["eos", "stop", "words", "length", "deferred"]
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
class Message:
    """One turn of a chat."""

    role: str
    content: str


Signal: TypeAlias = Literal["router", "entropy", "margin", "random"]
"""What tells whether a model had better write the next token itself (runtime/deferral.py)."""


@dataclass(frozen=True, slots=True)
class Deferral:
    """Where a text is handed over: before a token that somebody else had better write.

    Before each token the writer's confidence is computed, in [0, 1]; it goes on while that is at
    least ``threshold``.
    """

    by: Signal
    threshold: float
    router: str = ""
    """Version of the router that tells, with ``by: router``."""
    weights: Router | None = field(default=None, repr=False)
    """Itself, for an engine that does not know it: one that does is spared the message."""
    offered: tuple[int, ...] = ()
    """What the other model would write from here on, as far as it has said: taken instead of
    handing over, as long as the text is the one that it was written for."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine continues a prompt."""

    max_tokens: int = 16
    """Upper bound on new tokens, the EOS included."""
    temperature: float = 0.0
    """0 is greedy (ties go to the lowest token id)."""
    top_p: float = 1.0
    seed: int = 0
    """Noise is keyed by (seed, absolute position), so chunks and batches do not change the text."""
    stop: tuple[str, ...] = ()
    """Generation ends with the token that completes any of these strings, across token borders."""
    words: int | None = None
    """Ends with the first token after which this many words of the new text are complete, that is,
    followed by white space (runtime/words.py)."""
    top_k: int = 0
    """Alternatives returned at each position; ``ALL`` returns dense rows."""
    ignore_eos: bool = False
    """Never picks an end-of-sequence token (benchmarks ask for a fixed length)."""
    until_below: float = 0.0
    """Ends, as at the limit, with the first token to which the model gives a lower probability: a
    draft that is judged by others had better not go on from a guess."""
    text_noise_from: int | None = None
    """Draw with noise keyed by (seed, place, the token's bytes) instead (runtime/noise.py), so that
    models with other vocabularies draw alike; place 0 is this absolute position. An engine that
    cannot draws its own way: only how often drafts are accepted depends on it."""
    defer: Deferral | None = None
    """Hands over to somebody else: ends as ``deferred`` before the first such token."""
    guess: tuple[int, ...] = ()
    """Tokens that may well come next. An engine that checks them in one pass instead of writing
    them one by one (speculative decoding, arXiv 2211.17192) is faster; the text is the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """Next-token logprobs at one position: the ``k`` best, or every token."""

    ids: np.ndarray | None
    """int64 [k], best first; ``None`` for a dense row, where the index is the token id."""
    logprobs: np.ndarray
    """float32 [k], or float32 [vocab_size]."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What an engine wrote after a prompt."""

    tokens: tuple[int, ...]
    """The new ids; ends with the EOS id when ``finish`` is "eos"."""
    logprobs: tuple[float, ...]
    finish: EngineFinish
    cached_tokens: int = 0
    """Prompt tokens whose keys and values came from the prefix cache."""
    top: tuple[Distribution, ...] | None = None
    tail_logprobs: tuple[float, ...] = ()
    """Logprobs of the last ``score_tail`` prompt tokens, when they were asked for."""
    confidences: tuple[float, ...] = ()
    """With ``Sampling.defer``: the writer's before each token, those below the threshold being
    before tokens that were offered; one more where it has ``deferred``."""


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher-forced logprobs of one continuation."""

    logprobs: tuple[float, ...]
    top: tuple[Distribution, ...] | None = None
    cached_tokens: int = 0


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
    """The gateway's activity, where it is recorded (runtime/activity.py)."""
    caller: str | None = None
    """The name of the key that asks; ``None`` where no keys are needed."""


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """One token of a text, as the method chose it or judges it."""

    data: bytes
    """Its exact bytes, which may be part of a character; ``b""`` for the end of the answer."""
    logprob: float | None
    """Under the distribution that the method chooses from, at temperature 1; ``None`` for the first
    token of a scored text, which nothing stands before."""
    top: tuple[tuple[bytes, float], ...] = ()
    """The most probable tokens there with their logprobs, best first, as many as were asked for."""
    choices: Mapping[str, bytes] = field(default_factory=dict)
    """Member -> the token it holds most probable there."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Member -> its say in this token; empty where the method weighs nothing."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the answer, accepted for good."""

    text: str
    author: str
    """The member that wrote it."""
    step: int
    scores: Mapping[str, float] = field(default_factory=dict)
    """The candidates' values in this round, by author; in what direction is the method's."""
    weights: Mapping[str, float] | None = None
    final: bool = False
    """The author ended the answer here with its EOS."""
    tokens: tuple[TokenChoice, ...] = ()
    """The span token by token, by methods that choose tokens; a final one may end with ``b""``."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a method tells while it searches and has written nothing yet."""

    done: int
    total: int
    """At most so many of the same; a search may end earlier."""
    found: Mapping[str, float] = field(default_factory=dict)
    """More figures, by the method's own names."""


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
