"""Questions to a service that are asked in one loop tick travel as one message.

A message to another process costs as much as many small questions.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from runtime.errors import EngineFault

Q = TypeVar("Q")
A = TypeVar("A")


class Gathering(Generic[Q, A]):
    """``send`` carries a message and returns one answer, or one exception, for each question."""

    def __init__(self, send: Callable[[list[Q]], Awaitable[Sequence[A | Exception]]]) -> None:
        self._send_all = send
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """Raises what ``send`` raised, or what stands in this question's place."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            # A context of its own: the message is nobody's request alone.
            loop.call_soon(self._send, context=contextvars.Context())
        answered: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, answered))
        return await answered

    def _send(self) -> None:
        message, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._deliver(message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, message: list[tuple[Q, asyncio.Future[A]]]) -> None:
        sending = self._send_all([question for question, _ in message])
        # Whatever comes of it, those who wait must hear of it.
        [told] = await asyncio.gather(sending, return_exceptions=True)
        outcomes: Sequence[A | Exception]
        if isinstance(told, asyncio.CancelledError):  # by the other end; nobody here left
            outcomes = [EngineFault("the message was cancelled on its way")] * len(message)
        elif isinstance(told, Exception):
            outcomes = [told] * len(message)
        elif isinstance(told, BaseException):
            raise told
        else:
            outcomes = told
        for (_, answered), outcome in zip(message, outcomes, strict=True):
            if answered.done():  # its request has been cancelled
                continue
            if isinstance(outcome, Exception):
                answered.set_exception(outcome)
            else:
                answered.set_result(outcome)
