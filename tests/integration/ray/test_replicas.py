"""Several replicas of one member under Ray Serve."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.config.app_config import AppConfig
from deployments.handles.channels import ServeChannel
from deployments.launch.local_ray import APP
from deployments.serving.names import member_deployment
from runtime.call_context import CallContext, use_call_context
from runtime.calls.messages import Call
from runtime.calls.remote_engine import RemoteEngine
from runtime.errors import EngineFault
from runtime.types.sampling import Sampling
from tests.support.local_stack import CAT
from tests.support.serve import deployed

pytestmark = pytest.mark.ray

REQUESTS = [CallContext(f"request-{n}") for n in range(16)]


def config() -> dict[str, Any]:
    slow = {"type": "slow", "engine": CAT, "seconds": 0.05}
    slower = slow | {"seconds": 2.0}
    scaling = {"max_replicas": 2, "target_calls": 4, "upscale_delay_s": 0}
    return {
        "members": {
            "pair": {"engine": slow, "replica": {"num_cpus": 0.1, "num_replicas": 2}},
            "patient": {"engine": slower, "replica": {"num_cpus": 0.1, "num_replicas": 2}},
            "grows": {"engine": slow, "replica": {"num_cpus": 0.1, "autoscaling": scaling}},
        }
    }


@pytest.fixture(scope="module", autouse=True)
def application(serve_port: int) -> Iterator[None]:
    with deployed(serve_port, AppConfig.model_validate(config())):
        yield


def handle(member: str) -> DeploymentHandle:
    return serve.get_deployment_handle(member_deployment(member), APP)


def replicas(member: str) -> list[psutil.Process]:
    title = f"ServeReplica:{APP}:{member_deployment(member)}"
    processes = psutil.Process().children(recursive=True)
    return [p for p in processes if any(title in part for part in p.cmdline())]


async def call_member(engine: RemoteEngine, call_context: CallContext) -> None:
    await engine.open()
    with use_call_context(call_context):
        await engine.generate(engine.spec.eos_ids, Sampling(max_tokens=1))


async def test_a_request_returns_to_its_replica_and_shares_messages_with_its_neighbours() -> None:
    channel = ServeChannel("pair", handle("pair"), replicated=True)
    engine = RemoteEngine(channel)
    await asyncio.gather(*(call_member(engine, call_context) for call_context in REQUESTS))
    first = {call_context: channel.place(call_context) for call_context in REQUESTS}
    assert len(set(first.values())) == 2, "both replicas work"
    before = engine.messages_sent
    for _ in range(3):
        await asyncio.gather(*(call_member(engine, call_context) for call_context in REQUESTS))
    assert {call_context: channel.place(call_context) for call_context in REQUESTS} == first
    assert engine.messages_sent - before == 3 * 2, "one message a round to each replica"


async def test_another_coordinator_sends_a_request_to_the_same_replica() -> None:
    channels = [ServeChannel("pair", handle("pair"), replicated=True) for _ in range(2)]
    for channel in channels:
        engine = RemoteEngine(channel)
        await asyncio.gather(*(call_member(engine, call_context) for call_context in REQUESTS))
    for call_context in REQUESTS:
        assert channels[0].place(call_context) == channels[1].place(call_context)


async def test_a_caller_that_leaves_stops_its_call_wherever_that_runs() -> None:
    """Its message may have gone where another request's key led."""
    channel = ServeChannel("patient", handle("patient"), replicated=True)
    spec = await channel.describe()
    long = ("generate", (spec.eos_ids, Sampling(max_tokens=1)))
    calls = [Call(f"call-{n}", *long, call_context) for n, call_context in enumerate(REQUESTS)]
    sending = asyncio.ensure_future(channel.send(calls))
    await asyncio.sleep(0.5)
    for call in calls:
        await channel.abort(call)
    errors = {str(outcome.error) for outcome in await sending}
    assert errors == {"the engine call was cancelled"}


async def test_calls_of_a_killed_replica_succeed_on_the_other_when_repeated() -> None:
    channel = ServeChannel("pair", handle("pair"), replicated=True)
    engine = RemoteEngine(channel)
    await asyncio.gather(*(call_member(engine, call_context) for call_context in REQUESTS))
    doomed, _ = replicas("pair")
    os.kill(doomed.pid, signal.SIGKILL)

    async def with_retries(call_context: CallContext) -> int:
        for attempt in range(3):
            try:
                await call_member(engine, CallContext(call_context.request, attempt=attempt))
                return attempt
            except EngineFault:
                continue
        raise AssertionError(f"{call_context} was not served")

    async with asyncio.timeout(20):  # no waiting for a new replica
        await asyncio.gather(*map(with_retries, REQUESTS))


@pytest.mark.slow
async def test_a_busy_member_gets_another_replica() -> None:
    engine = RemoteEngine(ServeChannel("grows", handle("grows"), replicated=True), coalesce=False)
    assert len(replicas("grows")) == 1
    deadline = time.monotonic() + 120
    while len(replicas("grows")) < 2:
        assert time.monotonic() < deadline, "no replica was added"
        await asyncio.gather(*(call_member(engine, call_context) for call_context in REQUESTS))
