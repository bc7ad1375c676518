"""The cache of fetched weights: one folder for each entry, created atomically.

An entry is built in a temporary folder next to it and renamed, with a marker file that lists its
files. A lock for each name lets one process fetch while others wait for the result.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from runtime.errors import WeightsError
from runtime.weights import progress
from runtime.weights.checkpoint import hash_files

MARKER = "orchestrion.json"


def root() -> Path:
    """``$ORCHESTRION_CACHE``, or ``~/.cache/orchestrion``."""
    return Path(os.environ.get("ORCHESTRION_CACHE") or "~/.cache/orchestrion").expanduser()


def offline() -> bool:
    """Whether the environment forbids the network."""
    return any(
        os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")
        for name in ("ORCHESTRION_OFFLINE", "HF_HUB_OFFLINE")
    )


def slug(text: str) -> str:
    """A folder name for ``text``: readable, and different for different texts."""
    readable = re.sub(r"[^A-Za-z0-9.-]+|\.\.+", "_", text).strip("_.")[:80]
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@contextmanager
def locked(name: str, weights: str) -> Iterator[None]:
    """Holds the lock of one cache name; waits while another process fetches it."""
    folder = root() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            progress.say(f"waiting for another process that fetches {weights}")
            lock.acquire()
    except OSError as fault:
        raise WeightsError(
            f"the cache {root()} cannot be written ({fault}); set ORCHESTRION_CACHE to a folder "
            "that can"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_whole(entry: Path) -> bool:
    """Whether all files of ``entry`` are as recorded in its marker.

    A file of unchanged size and time counts as unchanged; otherwise it is hashed.
    """
    try:
        recorded = json.loads((entry / MARKER).read_text(encoding="utf-8"))["files"]
        touched = False
        for name, known in recorded.items():
            now = (entry / name).stat()
            if now.st_size != known["bytes"]:
                return False
            if now.st_mtime_ns != known["mtime_ns"]:
                touched = True
                if hash_files([entry / name]) != known["sha256"]:
                    return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if touched:
        mark(entry)
    return True


def mark(entry: Path) -> None:
    """Writes the marker: every file's size, time and hash."""
    files = {}
    for file in sorted(entry.iterdir()):
        if file.name != MARKER:
            status = file.stat()
            files[file.name] = {
                "bytes": status.st_size,
                "mtime_ns": status.st_mtime_ns,
                "sha256": hash_files([file]),
            }
    draft = entry / f".{MARKER}.part"
    draft.write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    draft.replace(entry / MARKER)


def settle(made: Path, entry: Path) -> None:
    """Moves a finished folder to its place in the cache."""
    mark(made)
    if entry.exists():
        shutil.rmtree(entry)
    entry.parent.mkdir(parents=True, exist_ok=True)
    made.rename(entry)


def need_space(folder: Path, needed: int, weights: str) -> None:
    """Raises ``WeightsError`` unless ``folder``'s disk has ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"weights {weights!r}: not enough disk: {needed / 1e9:.1f} GB needed, "
            f"{free / 1e9:.1f} GB free under {root()}; free some, or set ORCHESTRION_CACHE to a "
            "larger disk"
        )
