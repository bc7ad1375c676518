"""Questions to a service travel together: those of one loop tick, and all that come up while it is
busy with others.

A message to another process costs as much as many small questions, and so does a model's pass.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from runtime.errors import EngineFault

Q = TypeVar("Q")
A = TypeVar("A")


Asked: TypeAlias = tuple[Q, "asyncio.Future[A]"]


class RequestBatcher(Generic[Q, A]):
    """``send`` carries a message and returns one answer, or one exception, for each question. At
    most ``at_once`` messages are under way; one that nobody waits for any more is cancelled."""

    def __init__(
        self, send: Callable[[list[Q]], Awaitable[Sequence[A | Exception]]], at_once: int = 1
    ) -> None:
        self._send_all, self._at_once = send, at_once
        self._waiting: list[Asked[Q, A]] = []
        self._due = False
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """Raises what ``send`` raised, or what stands in this question's place."""
        answered: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answered))
        self._go_on()
        return await answered

    def _go_on(self) -> None:
        if self._waiting and not self._due and len(self._sending) < self._at_once:
            self._due = True
            # A context of its own: the message is nobody's request alone.
            asyncio.get_running_loop().call_soon(self._send, context=contextvars.Context())

    def _send(self) -> None:
        self._due = False
        message = [asked for asked in self._waiting if not asked[1].done()]
        self._waiting = []
        if not message:
            return
        task = asyncio.get_running_loop().create_task(self._deliver(message))
        self._sending.add(task)
        task.add_done_callback(self._sent)
        for _, answered in message:
            answered.add_done_callback(partial(self._left, message, task))

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._go_on()

    def _left(
        self, message: list[Asked[Q, A]], task: asyncio.Task[None], own: asyncio.Future[A]
    ) -> None:
        if own.cancelled() and all(answered.done() for _, answered in message):
            task.cancel()

    async def _deliver(self, message: list[Asked[Q, A]]) -> None:
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
