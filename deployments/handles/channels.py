"""Messages to members and coordinators through Ray Serve handles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.serve.exceptions import (
    BackPressureError,
)
from ray.serve.handle import DeploymentHandle

from deployments.handles.affinity import ReplicaAffinity, affinity_key
from deployments.handles.availability import Availability
from deployments.handles.errors import LOST_REPLICA, orchestrion_error
from runtime.call_context import CallContext, current_call_context
from runtime.calls.messages import Call, Outcome
from runtime.engines.base import EngineSpec
from runtime.rewards.base import Judged, Reasoning

logger = logging.getLogger(__name__)


class ServeChannel:
    """Sends messages to the replicas of one member.

    With several replicas, the calls of a request go to the replica whose cache holds its prefix:
    Serve picks it by a consistent hash of the trace id. Replies name the replica, so that requests
    of the same replica share messages.
    """

    def __init__(self, name: str, handle: DeploymentHandle, replicated: bool = False) -> None:
        self._name = name
        self._handle = handle
        self._affinity = ReplicaAffinity() if replicated else None
        self._availability = Availability(f"member {name!r}", handle)

    async def describe(self) -> EngineSpec:
        wait_for_replica = current_call_context().wait_for_replica
        return await self._availability.call(
            lambda: self._result(self._handle.describe.remote()), wait_for_replica
        )

    def place(self, call_context: CallContext) -> str:
        place = "" if self._affinity is None else self._affinity.of(call_context)
        return f"{place}, patiently" if call_context.wait_for_replica else place

    async def send(self, calls: Sequence[Call]) -> list[Outcome]:
        to = self._to(calls[0].call_context)
        replica, outcomes = await self._availability.call(
            lambda: self._result(to.calls.remote(list(calls))),
            calls[0].call_context.wait_for_replica,
        )
        if self._affinity is not None:
            self._affinity.learn([call.call_context for call in calls], replica)
        return outcomes

    async def abort(self, call: Call) -> None:
        if self._affinity is None:
            await self._result(self._handle.abort.remote([call.id]))
        else:
            # To all replicas: the call may run on another one than its key selects, because that
            # one was full or the call shared the message of another request.
            try:
                await self._handle.broadcast("abort", [call.id]).results_async()
            except LOST_REPLICA as fault:
                raise orchestrion_error(fault, f"member {self._name!r}") from fault

    def _to(self, call_context: CallContext) -> DeploymentHandle:
        if self._affinity is None:
            return self._handle
        return self._handle.options(session_id=affinity_key(call_context))

    async def _result(self, response: Any) -> Any:
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # otherwise the replica would continue
            raise
        except (*LOST_REPLICA, BackPressureError) as fault:
            raise orchestrion_error(fault, f"member {self._name!r}") from fault


class ServeRewards:
    """Sends chains of steps to the replicas of one reward model, which score them in batches."""

    def __init__(self, name: str, handle: DeploymentHandle) -> None:
        self._name, self._score = f"reward model {name!r}", handle.score_steps

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[Judged]:
        judged: list[Judged] = await _aux_model(self._score.remote(list(chains)), self._name)
        return judged


class ServeEncoder:
    """Sends texts to the replicas of one encoder."""

    def __init__(self, name: str, handle: DeploymentHandle) -> None:
        self._name, self._encode = f"encoder {name!r}", handle.encode

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = await _aux_model(self._encode.remote(list(texts)), self._name)
        return vectors


async def _aux_model(response: Any, name: str) -> Any:
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except (*LOST_REPLICA, BackPressureError) as fault:
        raise orchestrion_error(fault, name) from fault
