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

from deployments.handles.affinity import Places, affinity_key
from deployments.handles.availability import Availability
from deployments.handles.errors import GONE, typed
from runtime.call_context import CallContext, current_call_context
from runtime.calls.messages import Call, Outcome
from runtime.engines.base import EngineSpec
from runtime.rewards.base import Judged, Reasoning

logger = logging.getLogger(__name__)


class ServeChannel:
    """Messages to the replicas of one member.

    With several replicas, a request's calls return to the one whose cache holds its prefix: Serve
    picks it by a consistent hash of the trace id, and replies tell which one it was, so that
    messages are shared by requests of the same replica.
    """

    def __init__(self, name: str, handle: DeploymentHandle, replicated: bool = False) -> None:
        self._name = name
        self._handle = handle
        self._places = Places() if replicated else None
        self._presence = Availability(f"member {name!r}", handle)

    async def describe(self) -> EngineSpec:
        wait_for_replica = current_call_context().wait_for_replica
        return await self._presence.ask(
            lambda: self._ask(self._handle.describe.remote()), wait_for_replica
        )

    def place(self, call_context: CallContext) -> str:
        place = "" if self._places is None else self._places.of(call_context)
        return f"{place}, patiently" if call_context.wait_for_replica else place

    async def send(self, calls: Sequence[Call]) -> list[Outcome]:
        to = self._to(calls[0].call_context)
        replica, outcomes = await self._presence.ask(
            lambda: self._ask(to.calls.remote(list(calls))),
            calls[0].call_context.wait_for_replica,
        )
        if self._places is not None:
            self._places.learn([call.call_context for call in calls], replica)
        return outcomes

    async def abort(self, call: Call) -> None:
        if self._places is None:
            await self._ask(self._handle.abort.remote([call.id]))
        else:
            # To all: the call may have gone elsewhere than its key says, for its replica was full
            # or its message was another request's too.
            try:
                await self._handle.broadcast("abort", [call.id]).results_async()
            except GONE as fault:
                raise typed(fault, f"member {self._name!r}") from fault

    def _to(self, call_context: CallContext) -> DeploymentHandle:
        if self._places is None:
            return self._handle
        return self._handle.options(session_id=affinity_key(call_context))

    async def _ask(self, response: Any) -> Any:
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # Serve lets the replica work on unless it is told
            raise
        except (*GONE, BackPressureError) as fault:
            raise typed(fault, f"member {self._name!r}") from fault


class ServeRewards:
    """Chains of steps to the replicas of one reward model, which judge them in batches."""

    def __init__(self, name: str, handle: DeploymentHandle) -> None:
        self._what, self._score = f"reward model {name!r}", handle.score_steps

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[Judged]:
        judged: list[Judged] = await _aux_model(self._score.remote(list(chains)), self._what)
        return judged


class ServeEncoder:
    """Texts to the replicas of one encoder."""

    def __init__(self, name: str, handle: DeploymentHandle) -> None:
        self._what, self._encode = f"encoder {name!r}", handle.encode

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = await _aux_model(self._encode.remote(list(texts)), self._what)
        return vectors


async def _aux_model(response: Any, what: str) -> Any:
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except (*GONE, BackPressureError) as fault:
        raise typed(fault, what) from fault
