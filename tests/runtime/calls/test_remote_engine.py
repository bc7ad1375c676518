"""Messages between a coordinator and a member, over a channel that writes down what it carries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import numpy as np
import pytest

from runtime.call_context import CallContext, current_call_context, use_call_context
from runtime.calls.messages import Call, CallRunner, Outcome
from runtime.calls.remote_engine import RemoteEngine
from runtime.engines.base import EngineSpec
from runtime.errors import EngineFault
from runtime.types.outputs import Distribution, Generation, Score, Tokens
from runtime.types.sampling import Sampling


class Counting:
    """An engine that answers with its request, and can be made to wait."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.cancelled = 0

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if prompt[0] == -1:
            raise EngineFault("negative")
        if prompt[0] == -2:
            raise ZeroDivisionError("a bug")
        if prompt[0] == -3:
            raise asyncio.CancelledError
        return Generation(tuple(prompt), (), "length")

    async def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int = 0,
        also: Sequence[Sequence[Tokens]] = (),
    ) -> list[Score]:
        return [Score(tuple(float(t) for t in c)) for c in continuations]

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        return [Distribution(None, np.zeros(top_k)) for _ in prompts]

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        return np.zeros((len(prompts), 2))


class Recording:
    """Carries messages to a runner in this process."""

    def __init__(self, engine: Counting) -> None:
        self.runner = CallRunner(engine)  # type: ignore[arg-type]
        self.messages: list[list[Call]] = []
        self.broken = False

    async def describe(self) -> EngineSpec:
        raise EngineFault("not called here")

    def place(self, call_context: CallContext) -> str:
        return ""

    async def send(self, calls: Sequence[Call]) -> list[Outcome]:
        self.messages.append(list(calls))
        if self.broken:
            raise EngineFault("gone")
        return await self.runner.run(calls)

    async def abort(self, call: Call) -> None:
        self.runner.abort([call.id])


async def test_calls_of_one_tick_travel_as_one_message_and_find_their_callers() -> None:
    channel = Recording(Counting())
    remote = RemoteEngine(channel)
    replies = await asyncio.gather(*(remote.generate([i], Sampling()) for i in range(5)))
    assert [reply.tokens for reply in replies] == [(i,) for i in range(5)]
    assert [len(message) for message in channel.messages] == [5]
    assert (remote.calls_sent, remote.messages_sent) == (5, 1)


async def test_without_coalescing_every_call_is_a_message() -> None:
    channel = Recording(Counting())
    remote = RemoteEngine(channel, coalesce=False)
    await asyncio.gather(*(remote.generate([i], Sampling()) for i in range(5)))
    assert len(channel.messages) == 5


async def test_a_short_call_does_not_wait_for_a_long_one() -> None:
    engine = Counting()
    engine.go_on.clear()
    remote = RemoteEngine(Recording(engine))
    slow = asyncio.ensure_future(remote.generate([1], Sampling(max_tokens=100)))
    [score] = await remote.score([1], [[2, 3]])
    assert score.logprobs == (2.0, 3.0)
    assert not slow.done()
    engine.go_on.set()
    assert (await slow).tokens == (1,)


async def test_one_failing_call_leaves_the_others_of_its_message_alone() -> None:
    remote = RemoteEngine(Recording(Counting()))
    replies = await asyncio.gather(
        remote.generate([-1], Sampling()),
        remote.generate([1], Sampling()),
        return_exceptions=True,
    )
    assert isinstance(replies[0], EngineFault)
    assert isinstance(replies[1], Generation)


async def test_a_bug_in_one_call_is_logged_and_leaves_the_others_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    remote = RemoteEngine(Recording(Counting()))
    replies = await asyncio.gather(
        remote.generate([-2], Sampling()),
        remote.generate([1], Sampling()),
        return_exceptions=True,
    )
    assert isinstance(replies[0], EngineFault)
    assert "a bug" in str(replies[0])
    assert isinstance(replies[1], Generation)
    assert "ZeroDivisionError" in caplog.text


async def test_a_shared_message_belongs_to_no_callers_context() -> None:
    """Serve cancels what was begun in a request's context when that request's client leaves."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    class Watching(Recording):
        async def send(self, calls: Sequence[Call]) -> list[Outcome]:
            seen.append(request.get())
            return await super().send(calls)

    async def caller(remote: RemoteEngine) -> None:
        request.set("mine")
        await remote.generate([1], Sampling())

    await caller(RemoteEngine(Watching(Counting())))
    assert seen == ["none"]


async def test_a_message_that_the_other_end_cancels_is_a_fault_not_a_cancellation() -> None:
    class Cancelling(Recording):
        async def send(self, calls: Sequence[Call]) -> list[Outcome]:
            raise asyncio.CancelledError

    with pytest.raises(EngineFault, match="cancelled"):
        await RemoteEngine(Cancelling(Counting())).generate([1], Sampling())


async def test_a_call_that_the_engine_cancels_is_a_fault() -> None:
    remote = RemoteEngine(Recording(Counting()))
    with pytest.raises(EngineFault, match="the engine call was cancelled"):
        await remote.generate([-3], Sampling())


async def test_outcomes_of_another_number_are_a_fault_for_every_caller() -> None:
    class Losing(Recording):
        async def send(self, calls: Sequence[Call]) -> list[Outcome]:
            return (await super().send(calls))[:1]

    remote = RemoteEngine(Losing(Counting()))
    replies = await asyncio.wait_for(
        asyncio.gather(
            *(remote.generate([i], Sampling()) for i in range(2)), return_exceptions=True
        ),
        timeout=5,
    )
    assert [str(reply) for reply in replies] == ["1 results came for 2 calls"] * 2


async def test_a_broken_channel_is_reported_to_every_caller() -> None:
    channel = Recording(Counting())
    channel.broken = True
    remote = RemoteEngine(channel)
    replies = await asyncio.gather(
        *(remote.generate([i], Sampling()) for i in range(3)), return_exceptions=True
    )
    assert [str(reply) for reply in replies] == ["gone"] * 3


async def test_a_caller_that_leaves_stops_its_own_call_only() -> None:
    engine = Counting()
    engine.go_on.clear()
    remote = RemoteEngine(Recording(engine))
    calls = [asyncio.ensure_future(remote.generate([i], Sampling())) for i in range(2)]
    await asyncio.sleep(0.01)
    calls[0].cancel()
    await asyncio.sleep(0.01)
    assert engine.cancelled == 1
    engine.go_on.set()
    assert (await calls[1]).tokens == (1,)


async def test_a_message_nobody_waits_for_is_cancelled() -> None:
    engine = Counting()
    engine.go_on.clear()
    remote = RemoteEngine(Recording(engine))
    calls = [asyncio.ensure_future(remote.generate([i], Sampling())) for i in range(2)]
    await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    await asyncio.sleep(0.01)
    assert engine.cancelled == 2


async def test_only_calls_of_one_place_share_a_message_and_their_terms_travel() -> None:
    class Placed(Recording):
        def place(self, call_context: CallContext) -> str:
            return call_context.request[0]

    channel = Placed(Counting())
    remote = RemoteEngine(channel)
    wanted = [CallContext("a1"), CallContext("b1", priority=5), CallContext("a2")]

    async def on(call_context: CallContext) -> None:
        with use_call_context(call_context):
            await remote.generate([1], Sampling())

    await asyncio.gather(*map(on, wanted))
    sent = [[call.call_context for call in message] for message in channel.messages]
    assert sorted(sent, key=len) == [[wanted[1]], [wanted[0], wanted[2]]]


async def test_the_engine_is_called_on_the_callers_terms() -> None:
    seen: list[CallContext] = []

    class Noting(Counting):
        async def generate(
            self, prompt: Tokens, sampling: Sampling, score_tail: int = 0
        ) -> Generation:
            seen.append(current_call_context())
            return await super().generate(prompt, sampling, score_tail)

    with use_call_context(CallContext("request", priority=3)):
        await RemoteEngine(Recording(Noting())).generate([1], Sampling())
    assert seen == [CallContext("request", priority=3)]
