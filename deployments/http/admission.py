"""Admission control: a full server refuses a request at once instead of queueing it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from runtime.errors import Overloaded
from runtime.observability.metrics import REFUSED, REQUESTS_IN_PROGRESS, Meter

INITIAL_MEAN_S: Final = 1.0
"""Assumed duration of an answer before any has ended, in seconds."""
SMOOTHING: Final = 0.1
"""Weight of the newest answer in the moving average of durations."""
MIN_RETRY_S: Final = 0.05
MAX_REFUSALS: Final = 4096
"""Number of recent refusals that are counted."""


class Admission:
    """Counts the answers of one gateway replica; refuses those beyond ``limit``."""

    def __init__(
        self, limit: int, meter: Meter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._meter = meter
        self._clock = clock
        self._answers = 0
        self._requests = 0
        self._mean_s = INITIAL_MEAN_S
        self._refused: deque[float] = deque(maxlen=MAX_REFUSALS)

    @contextmanager
    def of(self, model: str, answers: int) -> Iterator[None]:
        """Holds the slots of a request while its answers are generated.

        Raises ``Overloaded`` when no slot is free. One free slot admits a request for several
        answers; otherwise requests for single answers would starve it."""
        if self._answers >= self._limit:
            self._meter.record(REFUSED, 1, model, "overloaded")
            raise Overloaded("this server", self._retry_after(answers))
        started = self._clock()
        self._step(1, answers)
        try:
            yield
            # Only completed answers count as durations.
            self._mean_s += SMOOTHING * (self._clock() - started - self._mean_s)
        finally:
            self._step(-1, -answers)

    def _retry_after(self, answers: int) -> float:
        """Seconds after which this request is likely to be admitted: recently refused requests
        will be repeated too, and slots become free at the usual rate."""
        now = self._clock()
        while self._refused and now - self._refused[0] > self._mean_s:
            self._refused.popleft()
        self._refused.append(now)
        waiting = len(self._refused) - 1 + answers
        return max(MIN_RETRY_S, self._mean_s * waiting / self._limit)

    def _step(self, requests: int, answers: int) -> None:
        self._requests += requests
        self._answers += answers
        self._meter.record(REQUESTS_IN_PROGRESS, self._requests)
