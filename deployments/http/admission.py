"""Whether another answer is begun: a full server says so at once and lets nobody wait in vain."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from runtime.errors import Overloaded
from runtime.observability.metrics import REFUSED, REQUESTS_IN_PROGRESS, Meter

FIRST_GUESS_S: Final = 1.0
"""How long an answer takes, before any has ended."""
NEWEST: Final = 0.1
"""Weight of the newest answer in the average."""
SHORTEST_S: Final = 0.05
REMEMBERED: Final = 4096
"""Refusals that are counted."""


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
        self._usual = FIRST_GUESS_S
        self._refused: deque[float] = deque(maxlen=REMEMBERED)

    @contextmanager
    def of(self, model: str, answers: int) -> Iterator[None]:
        """While a request's answers are written. Raises ``Overloaded`` when there is no room for
        one more; a request for several answers needs no more than that, or it would never get in
        where others keep asking for one."""
        if self._answers >= self._limit:
            self._meter.record(REFUSED, 1, model, "overloaded")
            raise Overloaded("this server", self._room_in(answers))
        started = self._clock()
        self._step(1, answers)
        try:
            yield
            # Only what came to its end tells how long answers take.
            self._usual += NEWEST * (self._clock() - started - self._usual)
        finally:
            self._step(-1, -answers)

    def _room_in(self, answers: int) -> float:
        """Seconds after which this request is likely to get in. Those who were refused before, as
        far as they are still out there, will be back too, and the server empties at its own pace.
        """
        now = self._clock()
        while self._refused and now - self._refused[0] > self._usual:
            self._refused.popleft()
        self._refused.append(now)
        waiting = len(self._refused) - 1 + answers
        return max(SHORTEST_S, self._usual * waiting / self._limit)

    def _step(self, requests: int, answers: int) -> None:
        self._requests += requests
        self._answers += answers
        self._meter.record(REQUESTS_IN_PROGRESS, self._requests)
