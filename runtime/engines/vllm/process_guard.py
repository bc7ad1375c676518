"""Sees to it that an engine's processes die with their parent, however that ends.

vLLM runs its core and workers as processes of their own. A parent that is killed cannot stop them,
and they would hold their memory, or a GPU, for ever (vllm-project/vllm#55510). Ray kills a worker's
process group, but only as long as its raylet lives; without Ray nothing does.

Run as a script, this file is the process that watches.
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
_watcher: Watcher | None = None


def engage() -> None:
    """To be called before an engine starts its processes. One watcher serves all engines here."""
    global _engines, _watcher
    with _lock:
        _engines += 1
        if _watcher is None:
            _watcher = Watcher()


def release() -> None:
    """An engine has stopped its processes in an orderly way."""
    global _engines, _watcher
    with _lock:
        _engines -= 1
        if _engines == 0 and _watcher is not None:
            _watcher.close()
            _watcher = None


class Watcher:
    """A small process that outlives this one only to kill what its engines leave behind."""

    def __init__(self) -> None:
        read, self._write = os.pipe()  # its writing end dies with this process, in whatever way
        try:
            self._process = subprocess.Popen(
                # isolated: this folder, which holds a vllm.py, stays off the path
                [sys.executable, "-I", __file__, str(os.getpid()), str(read)],
                pass_fds=(read,),
                start_new_session=True,  # not to be killed along with a process group
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        finally:
            os.close(read)

    def close(self) -> None:
        with suppress(BrokenPipeError):  # somebody killed it
            os.write(self._write, b".")
        os.close(self._write)
        self._process.wait(timeout=STOPPED_S)


def watch(parent: psutil.Process, pipe: int) -> None:
    """Returns when it is told to, or when the parent is gone and nothing of its engines is left."""
    charges: set[psutil.Process] = set()
    while _alive(parent):
        charges = {child for child in charges | _engine_processes(parent) if _alive(child)}
        ready, _, _ = select.select([pipe], [], [], POLL_S)
        if ready:
            if os.read(pipe, 1):
                return
            break
    late = {process for child in charges for process in _descendants(child)}
    for child in charges | late:
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
        return found  # one of them is just ending; the next look will tell
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
    watch(psutil.Process(int(sys.argv[1])), int(sys.argv[2]))
