"""No process of vLLM outlives the one that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from openai import OpenAI, OpenAIError

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow
ENGINE = {
    "type": "vllm",
    "weights": "zoo:small",
    "dtype": "float32",
    "kv_cache_memory_bytes": 64 * 2**20,
    "threads": 1,
}
ALONE = """
import time
from runtime.config.engines import VllmEngine
from runtime.engines import build_engine
if __name__ == "__main__":
    engine = build_engine(VllmEngine.model_validate({engine!r}))
    print("up", flush=True)
    time.sleep(600)
"""


def vllm_processes(of: psutil.Process) -> list[psutil.Process]:
    """Cores (and workers, where those are processes of their own) among a process's descendants."""
    return [p for p in of.children(recursive=True) if "VLLM::" in "".join(p.cmdline())]


def eventually_vllm(of: psutil.Process, within_s: float = 10) -> list[psutil.Process]:
    """The same once they are there: a busy machine may tell an empty command line for a moment."""
    deadline = time.monotonic() + within_s
    while not (found := vllm_processes(of)):
        tree = [(p.pid, p.ppid(), p.cmdline()) for p in of.children(recursive=True)]
        assert time.monotonic() < deadline, tree
        time.sleep(0.1)
    return found


def gone(processes: list[psutil.Process], within_s: float = 30) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    for process in alive:
        process.kill()
    return not alive


Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts a Python process from the repository's root; kills it and its own at the end."""
    started: list[subprocess.Popen[str]] = []
    seen: list[psutil.Process] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            seen += psutil.Process(process.pid).children(recursive=True)
            process.kill()
        process.communicate()
    gone(seen, 5)


def test_a_killed_process_takes_its_engine_along(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(ALONE.format(engine=ENGINE))
    process = run(str(script))
    assert process.stdout is not None
    assert "up\n" in iter(process.stdout.readline, "")
    parent = psutil.Process(process.pid)
    eventually_vllm(parent)
    children = parent.children(recursive=True)
    parent.kill()
    assert gone(children), "the watcher itself is among them"


def test_a_process_killed_while_its_engine_starts_takes_it_along(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(ALONE.format(engine=ENGINE))
    process = run(str(script))
    parent = psutil.Process(process.pid)
    deadline = time.monotonic() + 120
    while not any("multiprocessing" in "".join(p.cmdline()) for p in parent.children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)
    children = parent.children(recursive=True)
    parent.kill()
    assert gone(children)


class ServeBackends:
    """``orchestrion serve`` with one vLLM member, in a process of its own."""

    def __init__(self, run: Run, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        member = {"engine": ENGINE, "replica": {"num_cpus": 1}, "timeout_s": 120}
        document = {
            "applications": [
                {
                    "name": "orchestrion",
                    "import_path": "deployments.app:build_app",
                    "args": {"members": {"small": member}},
                }
            ]
        }
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(document))
        self.process = run("-m", "deployments.cli", "serve", str(config), "--port", str(port))
        self.driver = psutil.Process(self.process.pid)
        self.client = OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=120
        )
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + 240
        while True:
            assert self.process.poll() is None, "orchestrion serve has ended"
            try:
                assert self.answer()
                return
            except OpenAIError:  # not up yet
                assert time.monotonic() < deadline, "never answered"
                time.sleep(0.5)

    def answer(self) -> str:
        reply = self.client.completions.create(
            model="small", prompt="The city of", max_tokens=5, extra_body={"ignore_eos": True}
        )
        return reply.choices[0].text

    @property
    def replica(self) -> psutil.Process:
        [found] = [
            p
            for p in self.driver.children(recursive=True)
            if "ServeReplica:orchestrion:member-small" in "".join(p.cmdline())
        ]
        return found


def test_under_serve_a_replica_or_core_that_dies_is_replaced_and_leaves_nothing_behind(
    run: Run, tmp_path: Path
) -> None:
    served = ServeBackends(run, tmp_path)
    first = served.replica
    engine = eventually_vllm(first)
    text = served.answer()
    first.kill()
    assert gone(engine)
    served.wait()
    second = served.replica
    assert second.pid != first.pid
    assert served.answer() == text
    for core in vllm_processes(second):
        core.kill()  # the replica lives, and its health check fails
    assert gone([second], 120)
    served.wait()
    assert served.answer() == text
    everything = served.driver.children(recursive=True)
    os.kill(served.driver.pid, signal.SIGTERM)
    assert served.process.wait(60) == 0
    assert gone(everything, 5), "an orderly end leaves nothing"


def test_under_serve_a_killed_driver_takes_everything_along(run: Run, tmp_path: Path) -> None:
    served = ServeBackends(run, tmp_path)
    replica = served.replica
    eventually_vllm(replica)
    ours = [replica, *replica.children(recursive=True)]
    everything = served.driver.children(recursive=True)
    served.driver.kill()
    assert gone(ours)
    gone(everything, 1)  # two agents of Ray's own would take a minute to notice
