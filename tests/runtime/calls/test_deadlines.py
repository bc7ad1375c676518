"""An engine stops when its sender has stopped waiting, notified or not."""

from __future__ import annotations

import asyncio
import time

import pytest

from runtime.call_context import CallContext, current_call_context
from runtime.calls.messages import Call, CallRunner
from runtime.config.engines import SlowEngine
from runtime.engines import build_engine
from runtime.errors import EngineFault
from runtime.observability.metrics import CANCELLED
from runtime.types.query import Budget
from runtime.types.sampling import Sampling
from tests.support.local_stack import CAT, animals, ask, running

NEVER = {"type": "slow", "engine": CAT, "seconds": 600}


async def test_a_call_ends_when_its_sender_no_longer_waits() -> None:
    engine = build_engine(SlowEngine.model_validate(NEVER))
    runner = CallRunner(engine)
    args = ((0,), Sampling(max_tokens=1), 0)
    started = time.monotonic()
    [outcome] = await runner.run([Call("1", "generate", args, CallContext("r", seconds=0.1))])
    assert time.monotonic() - started < 30
    assert isinstance(outcome.error, EngineFault) and "0.1 s" in str(outcome.error)
    assert runner.running == 0
    await engine.close()


@pytest.mark.parametrize(
    ("timeout", "budget", "least"), [(7.0, None, 6.0), (60.0, 5.0, 3.0), (5.0, 60.0, 4.0)]
)
async def test_engines_are_given_how_long_the_call_may_take(
    timeout: float, budget: float | None, least: float
) -> None:
    config = animals(e={"type": "sweetspan", "span_words": 1})
    for member in config["members"].values():
        member["timeout_s"] = timeout
    seen: list[CallContext] = []
    async with running(config) as stack:
        generate = stack.engines["cat"].generate

        async def noted(*args: object, **more: object) -> object:
            seen.append(current_call_context())
            return await generate(*args, **more)  # type: ignore[arg-type]

        stack.engines["cat"].generate = noted  # type: ignore[method-assign, assignment]
        await ask(stack, "e", budget=Budget(seconds=budget))
    most = min(timeout, budget or timeout)
    assert seen and all(call_context.seconds is not None for call_context in seen)
    assert all(least < (call_context.seconds or 0) <= most for call_context in seen)
    assert {call_context.request for call_context in seen} == {"t"}


async def test_calls_that_nobody_waits_for_are_counted() -> None:
    config = animals(e={"type": "sweetspan", "span_words": 1})
    config["members"]["dog"]["engine"] = NEVER
    async with running(config) as stack:
        for seconds in (0.1, 1.0, 10.0):  # until the call has begun; a busy machine needs longer
            request = asyncio.create_task(ask(stack, "e"))
            await asyncio.sleep(seconds)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            if stack.counts.value(CANCELLED, "e", "dog"):
                break
        assert stack.counts.value(CANCELLED, "e", "dog") == 1
