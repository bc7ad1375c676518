"""Metrics of answers and member calls, and the ``Meter`` protocol of their backend.

docs/metrics.md documents the same list; a test compares both.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
"""Histogram buckets in seconds: from one scoring call on a GPU to a long answer on a CPU."""


@dataclass(frozen=True, slots=True, eq=False)  # used as a key: hashed by identity
class Metric:
    """One metric, with a series for each combination of tag values."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    tags: tuple[str, ...]
    """Values are configured names and our own types only, so that their number stays small."""
    meaning: str


ANSWERS = Metric(
    "orchestrion_answers_total",
    "counter",
    ("ensemble", "outcome"),
    (
        "answers that ended, by stop reason; `cancelled`, or the error's type, for failed ones "
        "(`fault` for an unexpected error)"
    ),
)
ANSWERS_IN_PROGRESS = Metric(
    "orchestrion_answers_in_progress", "gauge", ("ensemble",), "answers in progress"
)
ANSWER_SECONDS = Metric(
    "orchestrion_answer_seconds",
    "histogram",
    ("ensemble",),
    "time from the request to the end, of completed answers",
)
FIRST_SPAN_SECONDS = Metric(
    "orchestrion_first_span_seconds",
    "histogram",
    ("ensemble",),
    "time from the request to the first accepted span",
)
VISIBLE_TOKENS = Metric(
    "orchestrion_visible_tokens_total",
    "counter",
    ("ensemble",),
    "completion tokens that clients were sent, by the reporting member's tokenizer, counted when "
    "the answer ends",
)
DEGRADED = Metric(
    "orchestrion_degraded_total",
    "counter",
    ("ensemble",),
    "completed answers that lost a member",
)
ROUNDS = Metric(
    "orchestrion_rounds_total",
    "counter",
    ("ensemble", "member"),
    "accepted spans, by the member that wrote them",
)
CALLS = Metric(
    "orchestrion_member_calls_total",
    "counter",
    ("ensemble", "member"),
    "engine calls, retries and failed ones included",
)
CALL_SECONDS = Metric(
    "orchestrion_member_call_seconds",
    "histogram",
    ("ensemble", "member"),
    "time the coordinator waited for one engine call, retries counted one by one",
)
RETRIES = Metric(
    "orchestrion_member_retries_total",
    "counter",
    ("ensemble", "member"),
    "retried calls",
)
DROPS = Metric(
    "orchestrion_member_drops_total",
    "counter",
    ("ensemble", "member"),
    "answers that dropped the member after its retries failed",
)
PROMPT_TOKENS = Metric(
    "orchestrion_member_prompt_tokens_total",
    "counter",
    ("ensemble", "member"),
    "prompt and scored tokens that the member processed, without those its cache held",
)
CACHED_TOKENS = Metric(
    "orchestrion_member_cached_tokens_total",
    "counter",
    ("ensemble", "member"),
    "prompt tokens that the member's cache held",
)
COMPLETION_TOKENS = Metric(
    "orchestrion_member_completion_tokens_total",
    "counter",
    ("ensemble", "member"),
    "tokens that the member wrote, accepted or not",
)
COST = Metric(
    "orchestrion_member_cost_total",
    "counter",
    ("ensemble", "member"),
    "cost by the configured prices, in `gateway.currency`",
)
MESSAGES_IN_PROGRESS = Metric(
    "orchestrion_member_messages_in_progress",
    "gauge",
    ("member",),
    "messages in progress in a replica of the member",
)
CALLS_IN_PROGRESS = Metric(
    "orchestrion_member_calls_in_progress",
    "gauge",
    ("member",),
    "engine calls in those messages",
)
MESSAGE_SECONDS = Metric(
    "orchestrion_member_message_seconds",
    "histogram",
    ("member",),
    "time of one message in a replica of the member",
)
QUESTIONS = Metric(
    "orchestrion_aide_questions_total",
    "counter",
    ("aide",),
    "chains of steps that a reward model scored and texts that an encoder encoded",
)
BATCH_SECONDS = Metric(
    "orchestrion_aide_batch_seconds",
    "histogram",
    ("aide",),
    "time of one batch in a replica of a reward model or text encoder",
)

REQUESTS_IN_PROGRESS = Metric(
    "orchestrion_requests_in_progress",
    "gauge",
    (),
    "requests in progress in a gateway replica; each may have several answers",
)
REFUSED = Metric(
    "orchestrion_refused_total",
    "counter",
    ("ensemble", "reason"),
    (
        "requests refused before any member was called: `overloaded`, `gateway.max_answers` "
        "were in progress; `rate`, a key's limit of requests; `quota`, its budget; `key`, an "
        "absent or unknown key; `reach`, a model, address or origin that is not allowed. The "
        "ensemble is `any` where the body was not read"
    ),
)
RESUMED = Metric(
    "orchestrion_resumed_total",
    "counter",
    ("ensemble", "cause"),
    (
        "answers resumed: `coordinator`, its process was lost; `client`, the connection broke "
        "and the client resumed"
    ),
)
CANCELLED = Metric(
    "orchestrion_cancelled_calls_total",
    "counter",
    ("ensemble", "member"),
    (
        "engine calls cancelled before their reply: the client disconnected, another member or "
        "a limit ended the answer, or the call timed out"
    ),
)

METRICS: Final = (
    ANSWERS,
    ANSWERS_IN_PROGRESS,
    ANSWER_SECONDS,
    FIRST_SPAN_SECONDS,
    VISIBLE_TOKENS,
    DEGRADED,
    ROUNDS,
    CALLS,
    CALL_SECONDS,
    RETRIES,
    DROPS,
    PROMPT_TOKENS,
    CACHED_TOKENS,
    COMPLETION_TOKENS,
    COST,
    MESSAGES_IN_PROGRESS,
    CALLS_IN_PROGRESS,
    REQUESTS_IN_PROGRESS,
    REFUSED,
    RESUMED,
    CANCELLED,
    MESSAGE_SECONDS,
    QUESTIONS,
    BATCH_SECONDS,
)


class Meter(Protocol):
    """Backend of the metrics."""

    def record(self, metric: Metric, value: float, *tags: str) -> None:
        """Adds to a counter, sets a gauge, or adds an observation to a histogram. ``tags`` are the
        values of ``metric.tags``, in that order."""
        ...


Series: TypeAlias = tuple[Metric, tuple[str, ...]]


class Counts:
    """An in-process backend."""

    def __init__(self) -> None:
        self._values: dict[Series, float] = defaultdict(float)
        self._observed: dict[Series, int] = defaultdict(int)

    def record(self, metric: Metric, value: float, *tags: str) -> None:
        series = (metric, tags)
        if metric.kind == "gauge":
            self._values[series] = value
            return
        self._values[series] += value
        self._observed[series] += metric.kind == "histogram"

    def value(self, metric: Metric, *tags: str) -> float:
        """Total of a counter, level of a gauge, or sum of a histogram's observations."""
        return self._values.get((metric, tags), 0.0)

    def observed(self, metric: Metric, *tags: str) -> int:
        """Number of a histogram's observations."""
        return self._observed.get((metric, tags), 0)
