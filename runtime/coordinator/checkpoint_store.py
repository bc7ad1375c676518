"""Checkpoints of recent answers, so that one whose connection to the client broke can resume."""

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

CAPACITY: Final = 512
"""Answers in memory; ended ones are evicted before the others."""
RETENTION_S: Final = 120.0
"""Seconds after the last update."""
IGNORED: Final = ("again", "left", "request_id", "traceparent", "priority")
"""Fields that may differ when a request is repeated."""

Name: TypeAlias = tuple[str | None, str]
"""Caller and trace id: clients may choose their ids, so callers need their own."""


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
        capacity: int = CAPACITY,
        seconds: float = RETENTION_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity, self._seconds, self._clock = capacity, seconds, clock
        self._open: OrderedDict[Name, _Entry] = OrderedDict()
        self._ended: OrderedDict[Name, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open) + len(self._ended)

    def note(self, query: Query, checkpoint: Checkpoint, spans: list[Span]) -> None:
        """Stores a checkpoint. ``spans`` may grow afterwards; the stored state does not."""
        name = (query.caller, query.id)
        self._open.pop(name, None)
        self._ended.pop(name, None)
        kind = self._open if checkpoint.ending is None else self._ended
        kind[name] = _Entry(query, checkpoint, spans, len(spans), self._clock())
        while len(self) > self._capacity:
            (self._ended or self._open).popitem(last=False)

    def settle(self, query: Query) -> None:
        """The answer is complete: drops token details that the request did not ask for."""
        name = (query.caller, query.id)
        entry = self._open.get(name) or self._ended.get(name)
        if entry is None:
            return
        spans = entry.spans[: entry.count]
        if query.logprobs is None and query.trace != "full":
            spans = [replace(span, tokens=()) for span in spans]
        entry.spans = spans

    def purge(self) -> None:
        """Evicts answers older than the retention time."""
        now = self._clock()
        for kind in (self._open, self._ended):
            while kind and now - next(iter(kind.values())).at > self._seconds:
                kind.popitem(last=False)

    def recall(self, query: Query) -> Checkpoint | None:
        """The checkpoint of exactly this query; ``None`` when it is unknown or was evicted."""
        self.purge()
        name = (query.caller, query.id)
        entry = self._open.get(name) or self._ended.get(name)
        if entry is None:
            return None
        ignored = {field: getattr(query, field) for field in IGNORED}
        if replace(entry.query, **ignored) != query:
            return None
        past = entry.checkpoint
        spans, before = tuple(entry.spans[: entry.count]), total(past.usage.values())
        return replace(past, spans=spans, before=before)
