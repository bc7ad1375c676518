"""Shared by tests of served applications: a model that counts, free ports, replica pids."""

from __future__ import annotations

import socket

import psutil

from deployments.launch.local_ray import APP

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
    """The process of a deployment's running replica, told by its title."""
    for process in psutil.Process().children(recursive=True):
        if any(f"ServeReplica:{APP}:{deployment}" in part for part in process.cmdline()):
            return process.pid
    raise AssertionError(f"no replica of {deployment}")
