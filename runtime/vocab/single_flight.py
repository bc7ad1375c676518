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
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._making: dict[tuple[int, Hashable], asyncio.Task[T]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        loop = asyncio.get_running_loop()
        place = (id(loop), key)
        task = self._making.get(place)
        if task is None or task.get_loop() is not loop:
            task = self._making[place] = loop.create_task(self._made(place, make))
        return await asyncio.shield(task)

    async def _made(self, place: tuple[int, Hashable], make: Callable[[], Awaitable[T]]) -> T:
        try:
            result = await make()
        finally:
            self._making.pop(place, None)
        self._kept[place[1]] = result
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return result

    def kept(self, key: Hashable) -> T | None:
        """The result for ``key``, if it is there."""
        return self._kept.get(key)

    def forget(self) -> None:
        """Drops what is kept; what is being made goes on."""
        self._kept.clear()
