"""Members without any replica, on a handle that says whether there is one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from deployments.handles.availability import PROBE_AFTER_S, Availability
from runtime.errors import EngineFault


class Handle:
    """As a deployment's: a broadcast fails where there is nobody."""

    def __init__(self, exists: bool) -> None:
        self.exists, self.probes = exists, 0

    def broadcast(self, method: str, ids: list[str]) -> Handle:
        assert (method, ids) == ("abort", [])
        self.probes += 1
        return self

    async def results_async(self) -> list[None]:
        if not self.exists:
            raise DeploymentUnavailableError(DeploymentID("member-one", "app"))
        return [None]


def availability(handle: Any) -> Availability:
    return Availability("member 'one'", handle)


async def reply() -> str:
    return "reply"


async def test_a_call_that_is_answered_soon_asks_nobody_else() -> None:
    handle = Handle(exists=True)
    assert await availability(handle).call(reply) == "reply"
    assert handle.probes == 0


async def test_a_slow_reply_of_a_member_that_is_there_is_waited_for() -> None:
    handle = Handle(exists=True)

    async def slowly() -> str:
        await asyncio.sleep(1.5 * PROBE_AFTER_S)
        return "late"

    assert await availability(handle).call(slowly) == "late"
    assert handle.probes == 1


async def test_a_call_that_nobody_can_serve_is_given_up_and_withdrawn() -> None:
    withdrawn = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            withdrawn.set()
            raise

    with pytest.raises(EngineFault, match="member 'one' has no running replica"):
        await availability(Handle(exists=False)).call(forever)
    assert withdrawn.is_set()


async def test_later_calls_fail_at_once_until_there_is_a_replica_again() -> None:
    handle = Handle(exists=False)
    checked = availability(handle)

    async def forever() -> str:
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(EngineFault):
        await checked.call(forever)
    started = time.monotonic()
    with pytest.raises(EngineFault):
        await checked.call(reply)
    assert time.monotonic() - started < PROBE_AFTER_S / 2
    handle.exists = True
    await asyncio.sleep(1.1 * PROBE_AFTER_S)
    assert await checked.call(reply) == "reply"
    probes = handle.probes
    assert await checked.call(reply) == "reply"
    assert handle.probes == probes, "probed no longer than needed"


async def test_a_caller_that_leaves_withdraws_its_call() -> None:
    withdrawn = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            withdrawn.set()

    asking = asyncio.ensure_future(availability(Handle(exists=True)).call(forever))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert withdrawn.is_set()


async def test_the_patient_wait_for_a_new_replica() -> None:
    handle = Handle(exists=False)

    async def slowly() -> str:
        await asyncio.sleep(1.5 * PROBE_AFTER_S)
        return "late"

    assert await availability(handle).call(slowly, wait_for_replica=True) == "late"
    assert handle.probes == 0


async def test_calls_that_wait_at_the_same_time_look_together() -> None:
    handle = Handle(exists=True)
    checked = availability(handle)

    async def slowly() -> str:
        await asyncio.sleep(1.5 * PROBE_AFTER_S)
        return "late"

    assert await asyncio.gather(*(checked.call(slowly) for _ in range(50))) == ["late"] * 50
    assert handle.probes <= 2


class Uncertain(Handle):
    """Serve does not know: a replica has just gone, or its router is not ready."""

    async def results_async(self) -> list[None]:
        raise self.fault

    def __init__(self, fault: Exception) -> None:
        super().__init__(exists=True)
        self.fault = fault


@pytest.mark.parametrize(
    "fault", [RuntimeError("Router is not initialized"), RayServeException("gone"), TimeoutError()]
)
async def test_where_serve_does_not_know_the_call_itself_reports(fault: Exception) -> None:
    async def slowly() -> str:
        await asyncio.sleep(1.5 * PROBE_AFTER_S)
        return "late"

    assert await availability(Uncertain(fault)).call(slowly) == "late"
