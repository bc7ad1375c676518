"""Events that are there at the same time, together: each message to another process costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def event_batches(events: AsyncIterator[T]) -> AsyncGenerator[list[T], None]:
    """What ``events`` yields without waiting in between, as one list; never an empty one.

    Raises what ``events`` raises, after what came before. Closing it, or cancelling the task that
    iterates, closes ``events``.
    """
    waiting: list[T] = []
    news = asyncio.Event()

    async def read() -> None:
        try:
            async for event in events:
                waiting.append(event)
                news.set()
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    reader = asyncio.ensure_future(read())
    reader.add_done_callback(lambda _: news.set())
    try:
        while not reader.done() or waiting:
            await news.wait()
            news.clear()
            if waiting:
                bunch, waiting[:] = list(waiting), []
                yield bunch
        reader.result()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
