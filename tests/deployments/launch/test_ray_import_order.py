"""Ray listens on loopback only, whenever it was imported: scripts of users import it early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[3]
NAME = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

CONFIG = """
from deployments.config.app_config import AppConfig
config = AppConfig.model_validate(
    {"members": {"one": {"engine": {"type": "echo"}, "replica": {"num_cpus": 0.1}}}}
)
"""
START = f"""
import os, socket
import psutil
import ray._private.ray_constants as constants
from deployments.launch.local_ray import serving
{CONFIG}
before = constants.ENABLE_RAY_CLUSTER
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with serving(config, port=port):
    here = psutil.Process()
    for process in (here, *here.children(recursive=True)):
        for listener in process.net_connections("inet"):
            if listener.status == psutil.CONN_LISTEN:
                words = " ".join(process.cmdline() if process != here else ["driver"])
                print("LISTENS", listener.laddr.ip, listener.laddr.port, words)
assert constants.ENABLE_RAY_CLUSTER is before, "a driver of a cluster would not find its address"
assert "{NAME}" not in os.environ
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    """The script as a user runs it, without what the tests' own process has set."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop(NAME, None)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import ray, ray.serve", ""], ids=["ray first", "ray last"])
def test_ray_listens_on_loopback_whenever_it_was_imported(first: str) -> None:
    result = run(f"{first}\n{START}")
    assert result.returncode == 0, result.stderr[-3000:]
    listeners = [line for line in result.stdout.splitlines() if line.startswith("LISTENS")]
    assert any("raylet" in line for line in listeners) and any(
        "driver" in line for line in listeners
    )
    elsewhere = [line for line in listeners if "127.0.0.1" not in line.split()[1]]
    # Serve fixes the address of one gRPC port for each replica (docs/security.md).
    assert all("ray::ServeReplica" in line for line in elsewhere), elsewhere
    assert len(elsewhere) == 2, "one replica of the member, one of the gateway"


@pytest.mark.slow
def test_ray_that_runs_already_is_left_alone_and_the_remedy_reported() -> None:
    result = run(
        f"""
import ray
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
from deployments.launch.local_ray import serving
from runtime.errors import ConfigError
{CONFIG}
try:
    with serving(config, port=0):
        pass
except ConfigError as refused:
    print("REFUSED", refused, ray.is_initialized())
ray.shutdown()
"""
    )
    assert result.returncode == 0, result.stderr[-3000:]
    [line] = [line for line in result.stdout.splitlines() if line.startswith("REFUSED")]
    assert "leave out ray.init()" in line and line.endswith("True")
