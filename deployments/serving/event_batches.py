"""Batches of events: fewer messages between processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def event_batches(events: AsyncIterator[T]) -> AsyncGenerator[list[T], None]:
    """Yields the events that are available at the same time as one list, never an empty one.

    Raises what ``events`` raises, after the events before it. Closing it, or cancelling the task
    that iterates, closes ``events``."""
    buffered: list[T] = []
    changed = asyncio.Event()

    async def read() -> None:
        try:
            async for event in events:
                buffered.append(event)
                changed.set()
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    reader = asyncio.ensure_future(read())
    reader.add_done_callback(lambda _: changed.set())
    try:
        while not reader.done() or buffered:
            await changed.wait()
            changed.clear()
            if buffered:
                batch, buffered[:] = list(buffered), []
                yield batch
        reader.result()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
