"""Single flight: concurrent callers of one key share one computation, whose result is cached."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """An LRU cache of ``limit`` results. Callers of a key that is being computed wait for it; a
    cancelled caller does not cancel the computation."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._results: OrderedDict[Hashable, T] = OrderedDict()
        self._tasks: dict[tuple[int, Hashable], asyncio.Task[T]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The cached result, else that of ``make()``. Raises what ``make`` raises."""
        if key in self._results:
            self._results.move_to_end(key)
            return self._results[key]
        loop = asyncio.get_running_loop()
        place = (id(loop), key)
        task = self._tasks.get(place)
        if task is None or task.get_loop() is not loop:
            task = self._tasks[place] = loop.create_task(self._run(place, make))
        return await asyncio.shield(task)

    async def _run(self, place: tuple[int, Hashable], make: Callable[[], Awaitable[T]]) -> T:
        try:
            result = await make()
        finally:
            self._tasks.pop(place, None)
        self._results[place[1]] = result
        while len(self._results) > self._limit:
            self._results.popitem(last=False)
        return result

    def kept(self, key: Hashable) -> T | None:
        """The cached result for ``key``, if there is one."""
        return self._results.get(key)

    def forget(self) -> None:
        """Clears the cache; running computations continue."""
        self._results.clear()
