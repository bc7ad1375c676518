"""What was accepted of the last answers, so that one whose way to its reader broke can go on."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from runtime.calls.ledger import total
from runtime.types.events import Checkpoint
from runtime.types.query import Query
from runtime.types.spans import Span

KEPT: Final = 512
"""Answers; those that have come to their end are forgotten before the others."""
KEPT_S: Final = 120.0
"""Seconds after their last news."""
NOT_ASKED: Final = ("again", "left", "request_id", "traceparent", "priority")
"""What may differ when the same is asked again."""

Name: TypeAlias = tuple[str | None, str]
"""Whose answer, and its trace id: ids may be chosen by clients."""


@dataclass(slots=True)
class _Entry:
    query: Query
    checkpoint: Checkpoint
    spans: list[Span]
    """The session's own list, of which the first ``count`` belong to the checkpoint."""
    count: int
    at: float


class CheckpointStore:
    """The newest checkpoint of each recent answer, in this process's memory."""

    def __init__(
        self,
        kept: int = KEPT,
        seconds: float = KEPT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept, self._seconds, self._clock = kept, seconds, clock
        self._open: OrderedDict[Name, _Entry] = OrderedDict()
        self._ended: OrderedDict[Name, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open) + len(self._ended)

    def note(self, query: Query, checkpoint: Checkpoint, spans: list[Span]) -> None:
        """``spans`` may grow afterwards; what was noted does not."""
        name = (query.caller, query.id)
        self._open.pop(name, None)
        self._ended.pop(name, None)
        kind = self._open if checkpoint.ending is None else self._ended
        kind[name] = _Entry(query, checkpoint, spans, len(spans), self._clock())
        while len(self) > self._kept:
            (self._ended or self._open).popitem(last=False)

    def settle(self, query: Query) -> None:
        """Nothing more is written now: what nobody asked to be told need not be kept."""
        name = (query.caller, query.id)
        entry = self._open.get(name) or self._ended.get(name)
        if entry is None:
            return
        spans = entry.spans[: entry.count]
        if query.logprobs is None and query.trace != "full":
            spans = [replace(span, tokens=()) for span in spans]
        entry.spans = spans

    def purge(self) -> None:
        """Forgets what is too old."""
        now = self._clock()
        for kind in (self._open, self._ended):
            while kind and now - next(iter(kind.values())).at > self._seconds:
                kind.popitem(last=False)

    def recall(self, query: Query) -> Checkpoint | None:
        """Of exactly this query; ``None`` when it is not known, or no longer."""
        self.purge()
        name = (query.caller, query.id)
        entry = self._open.get(name) or self._ended.get(name)
        if entry is None:
            return None
        told = {field: getattr(query, field) for field in NOT_ASKED}
        if replace(entry.query, **told) != query:
            return None
        past = entry.checkpoint
        spans, before = tuple(entry.spans[: entry.count]), total(past.usage.values())
        return replace(past, spans=spans, before=before)
