"""Processes that a test started, by id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def none_left_behind(grace_s: float = 10) -> Iterator[None]:
    """Fails when processes that were started inside outlive it by ``grace_s``; kills them."""
    before = set(psutil.Process().children(recursive=True))
    try:
        yield
    finally:
        started = set(psutil.Process().children(recursive=True)) - before
        _, alive = psutil.wait_procs(started, timeout=grace_s)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=5)
    assert not alive, f"processes left behind: {alive}"
