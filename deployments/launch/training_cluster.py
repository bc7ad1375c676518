"""Ray with the members for a training: a running cluster, or one on this machine."""

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
    """Runs Ray: the cluster of RAY_ADDRESS, as in a job, or a new one on this machine.

    ``app``: whose models run meanwhile; ``None`` for none. ``cpus``: for the training itself.
    ``written``: the paths of its results."""
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
    """The working directory of a job is a copy that is deleted with the job."""
    lost = [name for name in written if not Path(name).is_absolute()]
    if lost:
        console.print(
            f"[yellow]note:[/yellow] {', '.join(lost)} will be written to the job's copy of the "
            "working directory and deleted with it; use absolute paths on a shared disk",
            highlight=False,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
