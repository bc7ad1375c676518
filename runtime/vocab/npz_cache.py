"""A cache of array files, written atomically.

A file is written under a temporary name in the same folder and renamed. Two processes that write
the same file do not conflict: the last one wins with the same content.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from runtime.errors import WeightsError
from runtime.weights.cache import root

_DAMAGED = (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def place(kind: str, name: str) -> Path:
    """The path of a file of this kind."""
    return root() / kind / name


@contextmanager
def draft(file: Path) -> Iterator[Path]:
    """A temporary path that becomes ``file`` unless writing fails.

    Raises ``WeightsError`` where the cache cannot be written.
    """
    temporary: str | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            suffix=".part", prefix=f"{file.stem}.", dir=file.parent
        )
        os.close(handle)
        yield Path(temporary)
        os.replace(temporary, file)
        temporary = None
    except OSError as fault:
        raise WeightsError(
            f"the cache {root()} cannot be written ({fault}); free some space, or set "
            "ORCHESTRION_CACHE to a folder that can"
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def save(file: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays with the key of their inputs."""
    with draft(file) as path, path.open("wb") as stream:
        np.savez_compressed(stream, key=np.array(key), **arrays)  # type: ignore[arg-type]


def load(file: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays; ``None`` for a file that is missing, damaged or has another key."""
    try:
        # Opened here: numpy leaves an unreadable file open until garbage collection.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays if str(arrays.pop("key")) == key else None
    except _DAMAGED:
        return None
