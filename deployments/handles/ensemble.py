"""A coordinator deployment as the gateway asks it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from ray.exceptions import RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from deployments.handles.affinity import affinity_key
from deployments.handles.channels import logger
from deployments.handles.errors import GONE, typed
from runtime.call_context import CallContext
from runtime.observability.logs import tell
from runtime.observability.metrics import RESUMED, Meter
from runtime.types.events import Checkpoint, Ended, Event, Recalled, Written
from runtime.types.query import Query
from runtime.types.spans import Span


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
        return self._handle.options(session_id=affinity_key(CallContext(query.id)))

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
