"""Ray with the members that a training asks: a cluster that is there, or one on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import HOST, joined, serving
from deployments.launch.weights import fetch_weights
from deployments.progress import console


@contextlib.contextmanager
def members_up(app: AppConfig | None, cpus: float, written: Sequence[str]) -> Iterator[None]:
    """The cluster of RAY_ADDRESS, as in a job, or one of our own, with ``app``'s models if any are
    to be live. ``cpus`` are for the training itself, ``written`` the files that it leaves."""
    if os.environ.get("RAY_ADDRESS"):
        _warn_of_lost_files(written)
    elif app is not None:
        fetch_weights(app)
        with serving(app, port=_free_port(), cpus=cpus):
            yield
        return
    with joined(app, cpus):
        yield


def _warn_of_lost_files(written: Sequence[str]) -> None:
    """A job's working folder is a copy that goes with the job."""
    lost = [name for name in written if not Path(name).is_absolute()]
    if lost:
        console.print(
            f"[yellow]note:[/yellow] in a job {', '.join(lost)} will be in the job's own copy of "
            "the working folder; give absolute paths on a shared disk to keep them",
            highlight=False,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
