"""Detects members without a running replica.

Serve lets a call wait for a replica until its timeout, which is minutes for large models. When a
member's node is lost, answers must continue without the member sooner.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from runtime.errors import ReplicaUnavailable

T = TypeVar("T")

PROBE_AFTER_S: Final = 1.0
"""Seconds without a reply after which the deployment is probed; later probes are rarer."""
MAX_PROBE_INTERVAL_S: Final = 10.0


class Availability:
    """Ends calls that no replica can serve: within a second, or at once where that is known. All
    waiting calls share one probe, at most once a second."""

    def __init__(self, name: str, handle: DeploymentHandle) -> None:
        self._name, self._handle = name, handle
        self._unavailable = False
        self._probe_task: asyncio.Task[None] | None = None
        self._probed_at = -PROBE_AFTER_S

    async def call(self, send: Callable[[], Awaitable[T]], wait_for_replica: bool = False) -> T:
        """The result of ``send()``. Raises ``ReplicaUnavailable`` as soon as there is no replica,
        unless ``wait_for_replica``."""
        if wait_for_replica:
            return await send()
        if self._unavailable and await self._check_unavailable():
            raise self._fault()
        pending = asyncio.ensure_future(send())
        pause = PROBE_AFTER_S
        try:
            while not (await asyncio.wait([pending], timeout=pause))[0]:
                if await self._check_unavailable() and not pending.done():
                    raise self._fault()
                pause = min(2 * pause, MAX_PROBE_INTERVAL_S)
            return pending.result()
        finally:
            if not pending.done():
                pending.cancel()
                await asyncio.gather(pending, return_exceptions=True)

    def _fault(self) -> ReplicaUnavailable:
        return ReplicaUnavailable(f"{self._name} has no running replica; loading")

    async def _check_unavailable(self) -> bool:
        if self._probe_task is None and time.monotonic() - self._probed_at >= PROBE_AFTER_S:
            # In a context of its own: it must not inherit the request that started the probe.
            loop = asyncio.get_running_loop()
            self._probe_task = loop.create_task(self._probe(), context=contextvars.Context())
        if self._probe_task is not None:
            await asyncio.wait([self._probe_task])
        return self._unavailable

    async def _probe(self) -> None:
        unavailable = False
        try:
            async with asyncio.timeout(PROBE_AFTER_S):
                # Without effect on replicas; Serve raises if there is none.
                await self._handle.broadcast("abort", []).results_async()
        except DeploymentUnavailableError:
            unavailable = True
        except (TimeoutError, RayError, RayServeException, RuntimeError):
            pass  # a replica exists, though busy or failing: the call itself will show it
        finally:
            self._unavailable, self._probe_task = unavailable, None
            self._probed_at = time.monotonic()
