"""An agent's folder, looked at before each request: a new export is taken without restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from policies.cascade.agent import ABOUT, Agent, load_agent
from runtime.errors import ConfigError

logger = logging.getLogger(__name__)


class AgentFile:
    """The newest whole agent of a folder."""

    def __init__(self, folder: Path, check: Callable[[Agent], None]) -> None:
        """``check`` raises ``ConfigError`` for an agent that cannot be served."""
        self._folder, self._check = folder, check
        self._seen: tuple[int, int] | None = None
        self._agent: Agent | None = None
        self._reading = asyncio.Lock()

    async def current(self) -> Agent:
        """Raises ``ConfigError`` while there is no agent to serve. One that is damaged, half
        written or trained for other conditions does not replace the one before it."""
        async with self._reading:
            seen = self._look()
            if self._agent is None or seen != self._seen:
                try:
                    found = await asyncio.to_thread(load_agent, self._folder)
                    self._check(found)
                    self._agent = found
                except ConfigError as fault:
                    if self._agent is None:
                        raise
                    logger.warning("goes on with agent %s: %s", self._agent.version, fault)
                # Also of a damaged one, lest every request read it again; whoever exports writes
                # this file last.
                self._seen = seen
            return self._agent

    def _look(self) -> tuple[int, int] | None:
        try:
            told = (self._folder / ABOUT).stat()
        except OSError:
            return None
        return told.st_mtime_ns, told.st_ino
