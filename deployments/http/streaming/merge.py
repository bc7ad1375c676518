"""The answers to one request's queries: run concurrently, merged in order of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final, TypeAlias

from deployments.http.answerer import Ensemble
from runtime.errors import EngineFault
from runtime.types.events import Ended, Event
from runtime.types.query import Query

BUFFERED: Final = 16
"""Events buffered for a slow client; when full, the answers wait."""

Arrival: TypeAlias = tuple[int, Event] | None
"""(index of the query, event), or ``None`` when ``idle_s`` passed without an event."""


async def arrivals(
    ensemble: Ensemble, queries: Sequence[Query], idle_s: float | None = None
) -> AsyncGenerator[Arrival, None]:
    """Events of all answers as they come; ``None`` after each ``idle_s`` seconds without an event.

    Raises what any answer raises, after the events before it. Closing it, or cancelling the task
    that iterates, cancels all answers. Each answer is iterated by one task of its own from start
    to end, so the ensemble may use timeouts and task groups across its events.
    """
    arrived: asyncio.Queue[tuple[int, Event]] = asyncio.Queue(BUFFERED)
    changed = asyncio.Event()

    async def write(index: int, query: Query) -> None:
        last: Event | None = None
        events = ensemble.answer(query)
        try:
            async for last in events:
                await arrived.put((index, last))
                changed.set()
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        if not isinstance(last, Ended):
            raise EngineFault(f"answer {query.id} ended without an Ended event")

    writers = [asyncio.create_task(write(*numbered)) for numbered in enumerate(queries)]
    for writer in writers:
        writer.add_done_callback(lambda _: changed.set())
    running = list(writers)
    try:
        while running:
            changed.clear()
            ended = [task for task in running if task.done()]
            for _ in range(arrived.qsize()):
                yield arrived.get_nowait()
            for writer in ended:
                running.remove(writer)
                if writer.cancelled():
                    raise EngineFault("an answer was cancelled by the ensemble")
                writer.result()
            if running:
                try:
                    async with asyncio.timeout(idle_s):
                        await changed.wait()
                except TimeoutError:
                    yield None
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
