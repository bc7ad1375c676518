"""Batches items for a service: those of one event-loop tick, and those that arrive while it is
busy.

A message to another process, or a forward pass, costs about as much for many small items as for
one.
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


Pending: TypeAlias = tuple[Q, "asyncio.Future[A]"]


class RequestBatcher(Generic[Q, A]):
    """``send`` takes a batch and returns one result, or one exception, for each item. At most
    ``at_once`` batches run at the same time; a batch is cancelled once all its callers have
    left."""

    def __init__(
        self, send: Callable[[list[Q]], Awaitable[Sequence[A | Exception]]], at_once: int = 1
    ) -> None:
        self._send_all, self._at_once = send, at_once
        self._waiting: list[Pending[Q, A]] = []
        self._due = False
        self._sending: set[asyncio.Task[None]] = set()

    async def submit(self, item: Q) -> A:
        """The result for ``item``. Raises the exception of the item or of its whole batch."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._schedule()
        return await future

    def _schedule(self) -> None:
        if self._waiting and not self._due and len(self._sending) < self._at_once:
            self._due = True
            # In an empty context: a batch belongs to several requests.
            asyncio.get_running_loop().call_soon(self._send, context=contextvars.Context())

    def _send(self) -> None:
        self._due = False
        message = [pending for pending in self._waiting if not pending[1].done()]
        self._waiting = []
        if not message:
            return
        task = asyncio.get_running_loop().create_task(self._deliver(message))
        self._sending.add(task)
        task.add_done_callback(self._on_sent)
        for _, future in message:
            future.add_done_callback(partial(self._cancel_if_unwanted, message, task))

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._schedule()

    def _cancel_if_unwanted(
        self, message: list[Pending[Q, A]], task: asyncio.Task[None], own: asyncio.Future[A]
    ) -> None:
        if own.cancelled() and all(future.done() for _, future in message):
            task.cancel()

    async def _deliver(self, message: list[Pending[Q, A]]) -> None:
        sending = self._send_all([item for item, _ in message])
        # Every caller must get a result or an exception, whatever happens.
        [result] = await asyncio.gather(sending, return_exceptions=True)
        outcomes: Sequence[A | Exception]
        if isinstance(result, asyncio.CancelledError):  # by the receiver: callers still wait
            outcomes = [EngineFault("the receiver cancelled the batch")] * len(message)
        elif isinstance(result, Exception):
            outcomes = [result] * len(message)
        elif isinstance(result, BaseException):
            raise result
        elif len(result) != len(message):
            fault = EngineFault(f"{len(result)} results came for {len(message)} items")
            outcomes = [fault] * len(message)
        else:
            outcomes = result
        for (_, future), outcome in zip(message, outcomes, strict=True):
            if future.done():  # its caller was cancelled
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
