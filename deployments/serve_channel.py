"""Messages to members and coordinators through Ray Serve handles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from deployments.affinity import Places, affinity_key
from deployments.presence import Presence
from runtime.call_context import Terms, current_terms
from runtime.calls.messages import Call, Outcome
from runtime.engines.base import EngineSpec
from runtime.errors import EngineFault, OrchestrionError, Overloaded
from runtime.observability.logs import tell
from runtime.observability.metrics import RESUMED, Meter
from runtime.rewards.base import Judged, Reasoning
from runtime.types.events import Checkpoint, Ended, Event, Recalled, Written
from runtime.types.query import Query
from runtime.types.spans import Span

logger = logging.getLogger(__name__)

GONE = (RayError, DeploymentUnavailableError, ReplicaUnavailableError)


def typed(fault: Exception, what: str) -> OrchestrionError:
    """Ray's faults in our words. A fault of our own comes back as it was raised."""
    if isinstance(fault, RayTaskError):
        if isinstance(fault.cause, OrchestrionError):
            return fault.cause
        return EngineFault(f"{what} failed: {fault.cause!r}")
    if isinstance(fault, BackPressureError):
        return Overloaded(what)
    return EngineFault(f"{what} is gone ({type(fault).__name__})")


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
        self._presence = Presence(f"member {name!r}", handle)

    async def describe(self) -> EngineSpec:
        patient = current_terms().patient
        return await self._presence.ask(lambda: self._ask(self._handle.describe.remote()), patient)

    def place(self, terms: Terms) -> str:
        place = "" if self._places is None else self._places.of(terms)
        return f"{place}, patiently" if terms.patient else place

    async def send(self, calls: Sequence[Call]) -> list[Outcome]:
        to = self._to(calls[0].terms)
        replica, outcomes = await self._presence.ask(
            lambda: self._ask(to.calls.remote(list(calls))), calls[0].terms.patient
        )
        if self._places is not None:
            self._places.learn([call.terms for call in calls], replica)
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

    def _to(self, terms: Terms) -> DeploymentHandle:
        if self._places is None:
            return self._handle
        return self._handle.options(session_id=affinity_key(terms))

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
        judged: list[Judged] = await _aide(self._score.remote(list(chains)), self._what)
        return judged


class ServeEncoder:
    """Texts to the replicas of one encoder."""

    def __init__(self, name: str, handle: DeploymentHandle) -> None:
        self._what, self._encode = f"encoder {name!r}", handle.encode

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = await _aide(self._encode.remote(list(texts)), self._what)
        return vectors


async def _aide(response: Any, what: str) -> Any:
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except (*GONE, BackPressureError) as fault:
        raise typed(fault, what) from fault


class ServeEnsemble:
    """A coordinator deployment as the gateway sees it; goes on when a coordinator dies."""

    def __init__(
        self,
        name: str,
        handle: DeploymentHandle,
        meter: Meter,
        replicated: bool = False,
        resumes: int = 3,
    ) -> None:
        self._name = name
        self._handle = handle.options(stream=True)
        self._meter = meter
        self._replicated = replicated
        self._card = handle.card
        self._decode = handle.decode
        self._stats = handle.stats
        self._resumes = resumes

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        """The coordinator's events; from the last checkpoint on another one if it is lost, however
        often that happens: only when ``resumes`` in a row bring nothing new, it is an error."""
        checkpoint: Checkpoint | None = None
        spans: list[Span] = []
        losses = failures = 0
        while True:
            messages = self._to(query).answer.remote(query, checkpoint)
            try:
                async for events in messages:
                    failures = 0
                    for event in events:  # all of them, before the first is told
                        if isinstance(event, Written) and event.span is not None:
                            spans.append(event.span)
                        if isinstance(event, Recalled):
                            spans = list(event.checkpoint.spans)
                        if not isinstance(event, Ended):
                            checkpoint = replace(event.checkpoint, spans=tuple(spans))
                    for event in events:
                        yield event
                    if isinstance(events[-1], Ended):
                        return
                return
            except (*GONE, BackPressureError) as fault:
                lost = not isinstance(fault, (RayTaskError, BackPressureError))
                losses, failures = losses + 1, failures + 1
                if not lost or failures > self._resumes:
                    raise typed(fault, f"the coordinator of {self._name!r}") from fault
                self._meter.record(RESUMED, 1, self._name, "coordinator")
                told = {"ensemble": self._name, "why": type(fault).__name__}
                tell(logger, logging.WARNING, "coordinator lost, resuming", **told, lost=losses)
            finally:
                messages.cancel()

    def _to(self, query: Query) -> DeploymentHandle:
        """Of several replicas the one that may still know of the query, if it is asked again."""
        if not self._replicated:
            return self._handle
        return self._handle.options(session_id=affinity_key(Terms(query.id)))

    async def card(self) -> dict[str, Any]:
        return await self._ask(self._card.remote())

    async def decode(self, ids: Sequence[int]) -> str:
        return await self._ask(self._decode.remote(list(ids)))

    async def stats(self) -> dict[str, int]:
        return await self._ask(self._stats.remote())

    async def _ask(self, response: Any) -> Any:
        try:
            return await response
        except (*GONE, BackPressureError, RequestCancelledError) as fault:
            raise typed(fault, f"the coordinator of {self._name!r}") from fault
