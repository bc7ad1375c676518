"""Client of an engine behind a message channel; calls of one event-loop tick share a message.

A message to another process takes milliseconds, more than a step of a small model. The number of
messages, not of calls, limits a coordinator that serves many requests.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import uuid
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np

from runtime.call_context import CallContext, current_call_context
from runtime.calls.messages import Call, Outcome, Verb
from runtime.engines.base import EngineSpec
from runtime.errors import EngineFault, Overloaded
from runtime.types.outputs import Distribution, Generation, Score, Tokens
from runtime.types.sampling import Sampling

Lane: TypeAlias = tuple[str, str]
"""``Call.lane`` and place: calls that may share a message."""


class Channel(Protocol):
    """Carries messages to one member. Raises ``EngineFault`` when the receiver is gone."""

    async def describe(self) -> EngineSpec: ...

    def place(self, call_context: CallContext) -> str:
        """The replica that serves calls of this context; only calls of one place may share a
        message."""
        ...

    async def send(self, calls: Sequence[Call]) -> list[Outcome]: ...

    async def abort(self, call: Call) -> None: ...


class RemoteEngine:
    """The ``Engine`` protocol over a ``Channel``. Await ``open`` before any other method."""

    def __init__(self, channel: Channel, coalesce: bool = True) -> None:
        self._channel = channel
        self._coalesce = coalesce
        self._spec: EngineSpec | None = None
        self._prefix = uuid.uuid4().hex[:12]
        self._count = itertools.count()
        self._waiting: dict[Lane, list[tuple[Call, asyncio.Future[Any]]]] = {}
        self._messages: set[asyncio.Task[None]] = set()
        self.calls_sent = 0
        self.messages_sent = 0

    async def open(self) -> None:
        """Fetches the spec; may be called again after a failure."""
        if self._spec is None:
            self._spec = await self._channel.describe()

    @property
    def spec(self) -> EngineSpec:
        if self._spec is None:
            raise RuntimeError("RemoteEngine.open() was not awaited")
        return self._spec

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        return await self._post("generate", tuple(prompt), sampling, score_tail)

    async def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int = 0,
        also: Sequence[Sequence[Tokens]] = (),
    ) -> list[Score]:
        return await self._post(
            "score", tuple(prompt), tuple(tuple(c) for c in continuations), top_k, also
        )

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        return await self._post("next_token", tuple(tuple(p) for p in prompts), top_k, also)

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        return await self._post("embed", tuple(tuple(p) for p in prompts))

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        return await self._post("states", tuple(prompt), tuple(continuation))

    async def vectors(self, ids: Tokens) -> np.ndarray:
        return await self._post("vectors", tuple(ids))

    async def check(self) -> None:
        await self._channel.describe()

    async def close(self) -> None:
        """Cancels messages in flight; the engine itself stays up."""
        for message in list(self._messages):
            message.cancel()
        await asyncio.gather(*self._messages, return_exceptions=True)

    async def _post(self, verb: Verb, *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        call = Call(f"{self._prefix}-{next(self._count)}", verb, args, current_call_context())
        reply: asyncio.Future[Any] = loop.create_future()
        lane = (
            (call.lane, self._channel.place(call.call_context)) if self._coalesce else (call.id, "")
        )
        if lane not in self._waiting:
            self._waiting[lane] = []
            # In an empty context: a shared message must not belong to the request that posted
            # first, or the end of that request would cancel it for all.
            loop.call_soon(self._dispatch, lane, context=contextvars.Context())
        self._waiting[lane].append((call, reply))
        return await reply

    def _dispatch(self, lane: Lane) -> None:
        posted = [(c, reply) for c, reply in self._waiting.pop(lane) if not reply.cancelled()]
        if not posted:
            return
        message = asyncio.ensure_future(self._deliver(posted))
        self._messages.add(message)
        message.add_done_callback(self._messages.discard)
        for call, reply in posted:
            reply.add_done_callback(partial(self._cancel_if_unwanted, call, posted, message))

    def _cancel_if_unwanted(
        self,
        call: Call,
        posted: list[tuple[Call, asyncio.Future[Any]]],
        message: asyncio.Task[None],
        own: asyncio.Future[Any],
    ) -> None:
        """When a caller was cancelled: abort its call, or the message if no caller is left."""
        if message.done() or not own.cancelled():
            return
        if all(reply.done() for _, reply in posted):
            message.cancel()
        else:
            loop = asyncio.get_running_loop()
            abort = self._channel.abort(call)
            aborting = loop.create_task(_abort_quietly(abort), context=contextvars.Context())
            self._messages.add(aborting)
            aborting.add_done_callback(self._messages.discard)

    async def _deliver(self, posted: list[tuple[Call, asyncio.Future[Any]]]) -> None:
        self.calls_sent += len(posted)
        self.messages_sent += 1
        sending = self._channel.send([call for call, _ in posted])
        try:
            [outcomes] = await asyncio.gather(sending, return_exceptions=True)
        except asyncio.CancelledError:
            for _, reply in posted:
                reply.cancel()
            raise
        if isinstance(outcomes, asyncio.CancelledError):  # by the receiver: callers still wait
            outcomes = EngineFault("the receiver cancelled the message")
        if not isinstance(outcomes, BaseException) and len(outcomes) != len(posted):
            outcomes = EngineFault(f"{len(outcomes)} results came for {len(posted)} calls")
        if isinstance(outcomes, BaseException):  # for every caller that still waits
            for _, reply in posted:
                if not reply.done():
                    reply.set_exception(outcomes)
            return
        for (_, reply), outcome in zip(posted, outcomes, strict=True):
            if reply.done():
                continue
            if outcome.error is not None:
                reply.set_exception(outcome.error)
            else:
                reply.set_result(outcome.value)


async def _abort_quietly(abort: Awaitable[None]) -> None:
    """Ignores a failed abort: no caller waits for that call."""
    with suppress(EngineFault, Overloaded):
        await abort
