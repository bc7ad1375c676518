"""Whether a member has any replica at all.

Serve lets a call wait for a replica until its timeout, which is minutes long for large models. When
a member's node is lost, answers must go on without the member sooner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from runtime.errors import Absent

T = TypeVar("T")

FIRST_LOOK_S: Final = 1.0
"""A call that has no reply by then is asked after; later looks are rarer."""
MOST_S: Final = 10.0


class Presence:
    """Gives calls up that no replica can serve: within a second, or at once where that is known."""

    def __init__(self, what: str, handle: DeploymentHandle) -> None:
        self._what, self._handle = what, handle
        self._absent = False

    async def ask(self, ask: Callable[[], Awaitable[T]], patient: bool = False) -> T:
        """What ``ask`` gives. Raises ``Absent`` as soon as there is no replica; the patient
        wait for a new one."""
        if patient:
            return await ask()
        if self._absent:
            await self._look()
        asking = asyncio.ensure_future(ask())
        pause = FIRST_LOOK_S
        try:
            while not (await asyncio.wait([asking], timeout=pause))[0]:
                await self._look()
                pause = min(2 * pause, MOST_S)
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                # Says nothing to anybody; Serve refuses it where there is nobody to hear it.
                await self._handle.broadcast("abort", []).results_async()
        except DeploymentUnavailableError:
            self._absent = True
            raise Absent(f"{self._what} has no running replica") from None
        except (TimeoutError, RayError):
            pass  # somebody is there, though busy or about to die: the call itself will tell
        self._absent = False
