"""Shared by tests of served applications: Ray Serve on loopback, a model that counts, free ports,
replica pids."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import APP, _wait_until_up, joined
from tests.support.processes import none_left_behind

CPUS = 8
"""That Ray believes in; replicas of tests take a tenth each."""

CHAIN = {f" {n}": {f" {n + 1}": 1} for n in range(1, 40)}


COUNT = {
    "type": "table",
    "vocabulary": [f" {n}" for n in range(1, 41)],
    "table": {"": {" 1": 1}, **CHAIN, " 40": {"<eos>": 1}},
}
"""Counts to forty."""


NUMBERS = "".join(f" {n}" for n in range(1, 41))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def replica_pid(deployment: str) -> int:
    """The process of a deployment's running replica, found by its title."""
    for process in psutil.Process().children(recursive=True):
        if any(f"ServeReplica:{APP}:{deployment}" in part for part in process.cmdline()):
            return process.pid
    raise AssertionError(f"no replica of {deployment}")


@contextmanager
def ray_serve() -> Iterator[int]:
    """Ray and Serve without an application; the port of Serve's proxy. No process outlives them."""
    from ray import serve

    port = free_port()
    with none_left_behind(), joined(None, cpus=CPUS):
        http = {"host": "127.0.0.1", "port": port}
        serve.start(proxy_location="HeadOnly", http_options=http)
        yield port


@contextmanager
def deployed(port: int, config: AppConfig, logs: dict[str, Any] | None = None) -> Iterator[str]:
    """The base URL of a configuration's application in the Serve that runs; deleted afterwards."""
    from ray import serve

    from deployments.app import build_app

    app = build_app(config.whole())
    try:
        serve._run(app, name=APP, route_prefix="/", _blocking=False, logging_config=logs)
        _wait_until_up(240)
        _wait_for_proxy(f"http://127.0.0.1:{port}/ready")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        serve.delete(APP)


def _wait_for_proxy(url: str, seconds: float = 30) -> None:
    """Serve's proxy hears of a new application a moment after it is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except urllib.error.URLError as fault:
            assert time.monotonic() < deadline, f"{url} is not there: {fault}"
        time.sleep(0.1)
