"""Ends an engine's processes with their parent, however the parent ends.

vLLM runs its core and workers as separate processes. A killed parent cannot stop them, and they
would hold their memory, or a GPU, forever (vllm-project/vllm#55510). Ray kills a worker's process
group, but only while its raylet lives; without Ray nothing does.

Run as a script, this file is the monitoring process.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from contextlib import suppress

import psutil

POLL_S = 0.5
STOPPED_S = 10.0

_lock = threading.Lock()
_engines = 0
_monitor: Monitor | None = None


def engage() -> None:
    """Call before an engine starts its processes. One monitor serves all engines of this
    process."""
    global _engines, _monitor
    with _lock:
        _engines += 1
        if _monitor is None:
            _monitor = Monitor()


def release() -> None:
    """Call after an engine has stopped its processes."""
    global _engines, _monitor
    with _lock:
        _engines -= 1
        if _engines == 0 and _monitor is not None:
            _monitor.close()
            _monitor = None


class Monitor:
    """A small process that outlives this one to kill the processes that its engines leave."""

    def __init__(self) -> None:
        read, self._write = os.pipe()  # the writing end closes with this process, however it ends
        try:
            self._process = subprocess.Popen(
                # isolated: this folder, whose modules could shadow others, stays off the path
                [sys.executable, "-I", __file__, str(os.getpid()), str(read)],
                pass_fds=(read,),
                start_new_session=True,  # not killed with this process group
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        finally:
            os.close(read)

    def close(self) -> None:
        with suppress(BrokenPipeError):  # the monitor was killed
            os.write(self._write, b".")
        os.close(self._write)
        self._process.wait(timeout=STOPPED_S)


def monitor(parent: psutil.Process, pipe: int) -> None:
    """Returns on a byte from ``pipe``, or after the parent's end once its engines are killed."""
    engines: set[psutil.Process] = set()
    while _alive(parent):
        engines = {child for child in engines | _engine_processes(parent) if _alive(child)}
        ready, _, _ = select.select([pipe], [], [], POLL_S)
        if ready:
            if os.read(pipe, 1):
                return
            break
    new_descendants = {process for child in engines for process in _descendants(child)}
    for child in engines | new_descendants:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _engine_processes(parent: psutil.Process) -> set[psutil.Process]:
    """Children that Python's multiprocessing spawned or vLLM has named, and all of theirs."""
    found: set[psutil.Process] = set()
    try:
        for child in parent.children():
            title = " ".join(child.cmdline())
            if "multiprocessing" in title or "VLLM::" in title:
                found |= {child, *child.children(recursive=True)}
    except psutil.Error:
        return found  # a process is just ending; the next poll sees the rest
    return found


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    monitor(psutil.Process(int(sys.argv[1])), int(sys.argv[2]))
