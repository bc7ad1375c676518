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

import psutil

POLL_S = 0.5
STOPPED_S = 10.0


class Reaper:
    """A small process that outlives its parent only to kill what the parent's engine leaves behind.

    It takes charge of the processes that the parent starts until ``settled``, and of theirs.
    """

    def __init__(self) -> None:
        read, self._write = os.pipe()  # its end dies with this process, in whatever way
        try:
            self._process = subprocess.Popen(
                # isolated: this folder, which holds a vllm.py, stays off the path
                [sys.executable, "-I", __file__, str(os.getpid()), str(read)],
                pass_fds=(read,),
                start_new_session=True,  # not to be killed along with a process group
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
        finally:
            os.close(read)
        assert self._process.stdout is not None
        with self._process.stdout as told:
            told.readline()  # from here on it watches

    def settled(self) -> None:
        """All processes of the engine are started."""
        os.write(self._write, b".")

    def close(self) -> None:
        """After the engine's orderly end; kills what that left."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1
            self._process.wait(timeout=STOPPED_S)


def watch(parent: psutil.Process, pipe: int) -> None:
    """Returns when the parent is gone and nothing of its engine is left."""
    before = {child.pid for child in _children(parent)}
    print(flush=True)
    charges: set[psutil.Process] = set()
    settled = False
    while True:
        if not settled:
            charges |= {child for child in _children(parent) if child.pid not in before}
        charges |= {grandchild for child in charges for grandchild in _children(child)}
        ready, _, _ = select.select([pipe], [], [], POLL_S)
        if ready and not os.read(pipe, 1):
            break
        if not _alive(parent):
            break
        settled = settled or bool(ready)
        charges = {child for child in charges if _alive(child)}
    for child in charges:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        found = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in found if child.pid != os.getpid()]


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    watch(psutil.Process(int(sys.argv[1])), int(sys.argv[2]))
