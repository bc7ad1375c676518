"""Whether a member has any replica at all.

Serve lets a call wait for a replica until its timeout, which is minutes long for large models. When
a member's node is lost, answers must go on without the member sooner.
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

FIRST_LOOK_S: Final = 1.0
"""A call that has no reply by then is asked after; later looks are rarer."""
MOST_S: Final = 10.0


class Availability:
    """Gives calls up that no replica can serve: within a second, or at once where that is known.
    All calls that wait look together, at most once a second."""

    def __init__(self, what: str, handle: DeploymentHandle) -> None:
        self._what, self._handle = what, handle
        self._absent = False
        self._looking: asyncio.Task[None] | None = None
        self._looked = -FIRST_LOOK_S

    async def ask(self, ask: Callable[[], Awaitable[T]], wait_for_replica: bool = False) -> T:
        """What ``ask`` gives. Raises ``ReplicaUnavailable`` as soon as there is no replica; the
        patient wait for a new one."""
        if wait_for_replica:
            return await ask()
        if self._absent and await self._is_absent():
            raise self._fault()
        asking = asyncio.ensure_future(ask())
        pause = FIRST_LOOK_S
        try:
            while not (await asyncio.wait([asking], timeout=pause))[0]:
                if await self._is_absent() and not asking.done():
                    raise self._fault()
                pause = min(2 * pause, MOST_S)
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    def _fault(self) -> ReplicaUnavailable:
        return ReplicaUnavailable(f"{self._what} has no running replica; loading")

    async def _is_absent(self) -> bool:
        if self._looking is None and time.monotonic() - self._looked >= FIRST_LOOK_S:
            # In a context of its own: it must not end with the request that happened to look.
            loop = asyncio.get_running_loop()
            self._looking = loop.create_task(self._look(), context=contextvars.Context())
        if self._looking is not None:
            await asyncio.wait([self._looking])
        return self._absent

    async def _look(self) -> None:
        unavailable = False
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                # Says nothing to anybody; Serve refuses it where there is nobody to hear it.
                await self._handle.broadcast("abort", []).results_async()
        except DeploymentUnavailableError:
            unavailable = True
        except (TimeoutError, RayError, RayServeException, RuntimeError):
            pass  # somebody is there, though busy or about to die: the call itself will tell
        finally:
            self._absent, self._looking, self._looked = unavailable, None, time.monotonic()
