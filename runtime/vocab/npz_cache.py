"""Files that can be made again at any time: arrays in the cache, whole or not at all.

A file is written beside its place and moved there by one rename, so two processes that make the
same file do not harm each other, and the last one wins with the same content.
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
    """Where a file of this kind is kept."""
    return root() / kind / name


@contextmanager
def draft(file: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``file`` unless writing fails.

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
    """Writes named arrays with the key of what they were made from."""
    with draft(file) as path, path.open("wb") as stream:
        np.savez_compressed(stream, key=np.array(key), **arrays)  # type: ignore[arg-type]


def load(file: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays, or ``None`` when there is no such file, or it is damaged or made from others."""
    try:
        # Opened here: numpy leaves a file that it cannot read to the garbage collector.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays if str(arrays.pop("key")) == key else None
    except _DAMAGED:
        return None
