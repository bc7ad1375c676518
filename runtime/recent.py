"""What was accepted of the last answers, so that one whose way to its reader broke can go on."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from runtime.types import Checkpoint, Query, Span

KEPT: Final = 256
"""Answers; the ones longest without news are forgotten first."""
KEPT_S: Final = 120.0
"""Seconds after their last news."""
NOT_ASKED: Final = ("again", "request_id", "traceparent", "budget")
"""What may differ when the same is asked again: a caller's budget has become smaller meanwhile."""


@dataclass(slots=True)
class _Entry:
    query: Query
    checkpoint: Checkpoint
    spans: list[Span]
    """The session's own list, of which the first ``count`` belong to the checkpoint."""
    count: int
    at: float


class Recent:
    """The newest checkpoint of each recent answer, in this process's memory."""

    def __init__(
        self,
        kept: int = KEPT,
        seconds: float = KEPT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept, self._seconds, self._clock = kept, seconds, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, query: Query, checkpoint: Checkpoint, spans: list[Span]) -> None:
        """``spans`` may grow afterwards; what was noted does not."""
        now = self._clock()
        self._entries[query.id] = _Entry(query, checkpoint, spans, len(spans), now)
        self._entries.move_to_end(query.id)
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if len(self._entries) <= self._kept and now - oldest.at <= self._seconds:
                break
            self._entries.popitem(last=False)

    def recall(self, query: Query) -> Checkpoint | None:
        """Of exactly this query; ``None`` when it is not known, or no longer."""
        entry = self._entries.get(query.id)
        if entry is None or self._clock() - entry.at > self._seconds:
            return None
        told = {name: getattr(query, name) for name in NOT_ASKED}
        if replace(entry.query, **told) != query:
            return None
        return replace(entry.checkpoint, spans=tuple(entry.spans[: entry.count]))
