"""``orchestrion train der`` and ``record`` on members that echo, live behind Ray Serve and from a
log."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments.launch.backends import InProcessBackends
from deployments.training.der_setup import Setup, load_setup
from envs.members.event_loop import EventLoopThread
from envs.members.recording import record
from policies.cascade.sequential.agent import load_agent
from runtime.data.query_log import Replay, write
from runtime.errors import ConfigError
from tests.support.models.agents import PROMPT
from tests.support.serve import free_port
from tests.support.training_files import OPEN, QUESTIONS, files, orchestrion


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What a job finds in its environment, on a cluster of this machine."""
    port = free_port()
    command = ["ray", "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}"]
    command += ["--include-dashboard=false", "--num-cpus=2", "--object-store-memory=100000000"]
    ray = str(Path(sys.executable).parent / "ray")
    head = subprocess.Popen(
        [ray, *command[1:], "--block"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **OPEN},
    )
    wait_for(port)
    yield {**OPEN, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    processes = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
    head.terminate()
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        process.kill()
    head.wait()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on {port}")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_brings_its_members_to_the_cluster_and_takes_them_away(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    result = orchestrion("train", "der", str(files(tmp_path)), "--iterations", "1", **cluster)
    assert "1 iterations" in result.stderr and load_agent(tmp_path / "agent").members == ("a", "b")
    seen = subprocess.run(
        [
            sys.executable,
            "-c",
            "import ray; ray.init(); from ray import serve; "
            "print(sorted(serve.status().applications))",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, **cluster},
        timeout=120,
        check=True,
    )
    assert seen.stdout.strip().endswith("[]")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_that_collect_train_too_and_are_missed_when_they_die(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    setup = load_setup(files(tmp_path))
    members = setup.members(InProcessBackends(setup.app), EventLoopThread("recording"))
    rows = record(members, [row["question"] for row in QUESTIONS], setup.der.members, 3)
    members.close()
    write(log, rows, setup.conditions)
    ppo = {"iterations": 2, "batch": 64, "minibatch": 32, "environments": 4, "hidden": [16]}
    path = files(tmp_path, answers={"type": "log", "path": str(log)}, ppo=ppo | {"runners": 1})
    assert "2 iterations" in orchestrion("train", "der", str(path)).stderr
    write(log, rows[:3], setup.conditions)
    with pytest.raises(AssertionError, match="has died"):
        orchestrion("train", "der", str(path), "--fresh")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_live_and_from_a_log_the_same_is_learnt(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "logged").mkdir()
    children = psutil.Process().children(recursive=True)
    path = files(tmp_path / "live")
    result = orchestrion("train", "der", str(path))
    assert "iteration" in result.stderr and "3 iterations" in result.stderr
    log = tmp_path / "log.parquet"
    result = orchestrion("record", str(path), "--out", str(log), "--depth", "3")
    assert "answers in" in result.stderr
    again = files(tmp_path / "logged", answers={"type": "log", "path": str(log)})
    orchestrion("train", "der", str(again))
    for name in ("agent", "one_shot"):
        live, logged = (load_agent(tmp_path / kind / name) for kind in ("live", "logged"))
        assert live.members == logged.members == ("a", "b")
        for (weight, bias), (other, more) in zip(live.layers, logged.layers, strict=True):
            assert weight == pytest.approx(other, abs=1e-5)
            assert bias == pytest.approx(more, abs=1e-5)
    assert load_agent(tmp_path / "live/agent").terminator
    run = tmp_path / "live/run"
    assert (run / "curve.svg").read_text().startswith("<?xml")
    assert len((run / "curve.jsonl").read_text().splitlines()) == 3
    warm = {"run": str(tmp_path / "warm"), "warm_start": {"log": str(log), "epochs": 50}}
    cloned = orchestrion(
        "train", "der", str(files(tmp_path / "logged", **warm)), "--iterations", "1"
    )
    assert "of the best routes' choices" in cloned.stderr
    # A longer run goes on from there.
    result = orchestrion("train", "der", str(path), "--iterations", "4")
    assert "goes on after iteration 3" in result.stderr
    left = [p for p in psutil.Process().children(recursive=True) if p not in children]
    assert not left, f"processes left behind: {left}"


def test_a_log_for_other_prompts_is_refused(tmp_path: Path) -> None:
    setup = load_setup(files(tmp_path))
    write(tmp_path / "log.parquet", [], setup.conditions)
    Replay(tmp_path / "log.parquet", setup.conditions)
    other = setup.app.model_copy(
        update={"ensembles": {"der": setup.der.model_copy(update={"prompts": {"a": PROMPT + "!"}})}}
    )
    with pytest.raises(ConfigError, match="prompts"):
        Replay(tmp_path / "log.parquet", Setup(setup.training, other).conditions)


@pytest.mark.parametrize(
    ("training", "named"),
    [
        ({"ensemble": "dre"}, "no ensemble 'dre'"),
        ({"questins": "x"}, r"train.yaml:\d+: questins: unknown key; did you mean 'questions'"),
        ({"ppo": {"iteration": 1}}, r"train.yaml:\d+: ppo.iteration: unknown key"),
        ({"serve": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_reported_by_line(tmp_path: Path, training: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_setup(files(tmp_path, **training))


def test_a_worlds_answers_come_from_the_log(tmp_path: Path) -> None:
    from runtime.data.query_log import MemberCall, Reply, Unrecorded

    log = tmp_path / "log.parquet"
    setup = load_setup(files(tmp_path, answers={"type": "log", "path": str(log)}))
    write(log, [(MemberCall("a", "q0"), Reply("q0", 0.5))], setup.conditions)
    world = setup({})
    assert world is setup({})
    [reply] = world.answers.ask([MemberCall("a", "q0")])
    assert reply == Reply("q0", 0.5)
    with pytest.raises(Unrecorded, match="orchestrion record"):
        world.answers.ask([MemberCall("b", "q0")])
    setup.close()
    other = setup({})
    assert other is not world
    setup.close()
