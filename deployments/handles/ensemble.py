"""A coordinator deployment as the gateway calls it."""

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
from deployments.handles.errors import LOST_REPLICA, orchestrion_error
from runtime.call_context import CallContext
from runtime.observability.logs import log_event
from runtime.observability.metrics import RESUMED, Meter
from runtime.types.events import Checkpoint, Ended, Event, Recalled, Written
from runtime.types.query import Query
from runtime.types.spans import Span


class ServeEnsemble:
    """The client of a coordinator deployment; resumes answers when a coordinator is lost."""

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
        """The events of an answer. When the coordinator is lost, another one continues from the
        last checkpoint. Raises ``EngineFault`` only after ``resumes`` attempts in a row without an
        event."""
        checkpoint: Checkpoint | None = None
        spans: list[Span] = []
        losses = failures = 0
        while True:
            messages = self._to(query).answer.remote(query, checkpoint)
            try:
                async for events in messages:
                    failures = 0
                    for event in events:  # all of them, before the first is yielded
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
            except (*LOST_REPLICA, BackPressureError) as fault:
                lost = not isinstance(fault, (RayTaskError, BackPressureError))
                losses, failures = losses + 1, failures + 1
                if not lost or failures > self._resumes:
                    raise orchestrion_error(fault, f"the coordinator of {self._name!r}") from fault
                self._meter.record(RESUMED, 1, self._name, "coordinator")
                log_event(
                    logger,
                    logging.WARNING,
                    "coordinator lost, resuming",
                    ensemble=self._name,
                    why=type(fault).__name__,
                    lost=losses,
                )
            finally:
                messages.cancel()

    def _to(self, query: Query) -> DeploymentHandle:
        """With several replicas the one that may hold state of the query, for a repeated
        request."""
        if not self._replicated:
            return self._handle
        return self._handle.options(session_id=affinity_key(CallContext(query.id)))

    async def card(self) -> dict[str, Any]:
        return await self._result(self._card.remote())

    async def decode(self, ids: Sequence[int]) -> str:
        return await self._result(self._decode.remote(list(ids)))

    async def stats(self) -> dict[str, int]:
        return await self._result(self._stats.remote())

    async def _result(self, response: Any) -> Any:
        try:
            return await response
        except (*LOST_REPLICA, BackPressureError, RequestCancelledError) as fault:
            raise orchestrion_error(fault, f"the coordinator of {self._name!r}") from fault
