"""One making of a thing at a time in an event loop, and its result kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Results by key, the ``limit`` last used. Who asks while one is made waits for that one; a
    caller that stops waiting does not stop the others."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._results: OrderedDict[Hashable, T] = OrderedDict()
        self._tasks: dict[tuple[int, Hashable], asyncio.Task[T]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
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
        """The result for ``key``, if it is there."""
        return self._results.get(key)

    def forget(self) -> None:
        """Drops what is kept; what is being made goes on."""
        self._results.clear()
