"""An export's folder, looked at before each request: a new export is taken without restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from runtime.errors import ConfigError

logger = logging.getLogger(__name__)


class Export(Protocol):
    """What training leaves behind for serving."""

    @property
    def version(self) -> str: ...


E = TypeVar("E", bound=Export)


class HotReloaded(Generic[E]):
    """The newest whole export of a folder."""

    def __init__(
        self, folder: Path, last: str, load: Callable[[Path], E], check: Callable[[E], None]
    ) -> None:
        """``last``: the file that is written last. ``check`` raises ``ConfigError`` for an export
        that cannot be served."""
        self._folder, self._last, self._load, self._check = folder, last, load, check
        self._seen: tuple[int, int] | None = None
        self._export: E | None = None
        self._reading = asyncio.Lock()

    async def current(self) -> E:
        """Raises ``ConfigError`` while there is nothing to serve. What is damaged, half written or
        trained for other conditions does not replace the one before it."""
        async with self._reading:
            seen = self._look()
            if self._export is None or seen != self._seen:
                try:
                    found = await asyncio.to_thread(self._load, self._folder)
                    self._check(found)
                    self._export = found
                except ConfigError as fault:
                    if self._export is None:
                        raise
                    logger.warning("goes on with %s: %s", self._export.version, fault)
                # Also of a damaged one, lest every request read it again.
                self._seen = seen
            return self._export

    def _look(self) -> tuple[int, int] | None:
        try:
            told = (self._folder / self._last).stat()
        except OSError:
            return None
        return told.st_mtime_ns, told.st_ino
