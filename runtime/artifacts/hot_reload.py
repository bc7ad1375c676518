"""Hot reload: the export's folder is checked before each request; a new export needs no restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from runtime.errors import ConfigError

logger = logging.getLogger(__name__)


class Export(Protocol):
    """A trained artifact."""

    @property
    def version(self) -> str: ...


E = TypeVar("E", bound=Export)


class HotReloaded(Generic[E]):
    """The newest valid export of a folder."""

    def __init__(
        self, folder: Path, last: str, load: Callable[[Path], E], check: Callable[[E], None]
    ) -> None:
        """``last``: the file that is written last. ``check`` raises ``ConfigError`` for an export
        that does not fit the configuration."""
        self._folder, self._last, self._load, self._check = folder, last, load, check
        self._stamp: tuple[int, int] | None = None
        self._export: E | None = None
        self._lock = asyncio.Lock()

    async def current(self) -> E:
        """The newest valid export; a damaged, incomplete or unsuitable one does not replace it.
        Raises ``ConfigError`` while there is none."""
        async with self._lock:
            stamp = self._read_stamp()
            if self._export is None or stamp != self._stamp:
                try:
                    export = await asyncio.to_thread(self._load, self._folder)
                    self._check(export)
                    self._export = export
                except ConfigError as fault:
                    if self._export is None:
                        raise
                    logger.warning(
                        "invalid export, still serving version %s: %s", self._export.version, fault
                    )
                # Also for a damaged export, which must not be read again for every request.
                self._stamp = stamp
            return self._export

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            status = (self._folder / self._last).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino
