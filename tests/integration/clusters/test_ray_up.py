"""``ray up``, ``ray exec``, served answers, another ensemble, a machine that is lost, ``ray down``.

The cluster file is the one for machines of one's own (deployments/clusters/on_premises.yaml). The
machines are namespaces (machines.py): each has its own sshd on port 22, network, processes and
home, so nothing of it meets the Ray, the ports or the keys of this machine.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from policies.cascade.sequential.agent import load_agent
from tests.integration.clusters.machines import Machine, machines, missing
from tests.support.paths import ROOT
from tests.support.serve import COUNT, NUMBERS
from tests.support.training_files import files as training_files

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SHIPPED: Final = ROOT / "deployments/clusters/on_premises.yaml"
URL: Final = "http://127.0.0.1:8000/v1"
WORKERS: Final = ("one", "two")
BOUNDS: Final = "--num-cpus=2 --object-store-memory=100000000"


def on_these(shipped: dict[str, Any], up: dict[str, Machine], key: Path) -> dict[str, Any]:
    """The shipped file for these machines: other addresses and key, bounds on what Ray takes, and
    this environment instead of packages that would have to be fetched."""
    here = f"ln -sfn {Path(sys.executable).parents[1]} ~/orchestrion-venv"
    changed = dict(shipped)
    changed["provider"] = shipped["provider"] | {
        "head_ip": up["head"].address,
        "worker_ips": [up[name].address for name in WORKERS],
    }
    changed["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    changed["setup_commands"] = [
        here if "-m venv" in command else command
        for command in shipped["setup_commands"]
        if "pip install" not in command
    ]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        changed[commands] = [
            command.replace("ray start", f"ray start {BOUNDS}") for command in shipped[commands]
        ]
    return changed


def serve_config(up: dict[str, Machine], **ensembles: dict[str, Any]) -> dict[str, Any]:
    """A counting member on each machine, in an application of their own."""
    members = {
        name: {
            "engine": {"type": "slow", "engine": COUNT, "seconds": 0.1},
            "timeout_s": 60,
            "replica": {"num_cpus": 0.1, "resources": {f"node:{machine.address}": 0.01}},
        }
        for name, machine in up.items()
        if name != "laptop"
    }
    listed = {name: {"members": list(members), "quorum": 2} | e for name, e in ensembles.items()}
    taught = {"engine": {"type": "echo"}, "replica": {"num_cpus": 0.1}}
    members |= {name: taught for name in ("a", "b")}
    args = {"models_app": "models", "members": members, "ensembles": listed}
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": 8000},
        "applications": [
            {
                "name": "orchestrion",
                "route_prefix": "/",
                "import_path": "deployments.app:build_app",
                "args": args,
            },
            {
                "name": "models",
                "route_prefix": None,
                "import_path": "deployments.models:build_models",
                "args": {"members": members},
            },
        ],
    }


SWEET: Final = {"type": "sweetspan", "span_words": 1}
FUSE: Final = {"type": "specfuse", "segment_tokens": 2, "temperature": 0}


class OnLaptop:
    """What somebody does who has the cluster file and the repository."""

    def __init__(self, up: dict[str, Machine], folder: Path) -> None:
        self.machines, self.folder = up, folder
        self.cluster = folder / "cluster.yaml"
        shipped = yaml.safe_load(SHIPPED.read_text())
        self.cluster.write_text(yaml.safe_dump(on_these(shipped, up, folder / "user_key")))

    def ray(self, *arguments: str, timeout: float = 240) -> str:
        command = shlex.join(["ray", *arguments])
        return self.machines["laptop"].run(f"cd {ROOT} && {command}", timeout)

    def on_head(self, command: str) -> str:
        return self.ray("exec", str(self.cluster), command)

    def deploy(self, **ensembles: dict[str, Any]) -> None:
        config = self.folder / "serve.yaml"
        config.write_text(yaml.safe_dump(serve_config(self.machines, **ensembles)))
        self.ray("rsync-up", str(self.cluster), str(config), "~/serve.yaml")
        self.on_head("serve deploy ~/serve.yaml")

    def asking(self, model: str, **files: Path) -> subprocess.Popen[str]:
        words = [URL, model, *(f"--{option}={file}" for option, file in files.items())]
        command = f"cd {ROOT} && python -m tests.integration.clusters.client {shlex.join(words)}"
        return self.machines["laptop"].start(command, stdout=subprocess.PIPE)

    def wait_for(self, model: str) -> None:
        """Until the endpoint has the model and it is ready."""

        def ready() -> bool:
            command = f"curl -s {URL}/models/{model} || true"
            printed = self.machines["laptop"].run(command)
            status = self.on_head("serve status") if "ensemble" not in printed else ""
            assert "DEPLOY_FAILED" not in status, status
            return '"members"' in printed

        wait(f"the model {model}", ready)


def answers_of(asking: subprocess.Popen[str], timeout: float = 240) -> list[dict[str, Any]]:
    out, _ = asking.communicate(timeout=timeout)
    answers: list[dict[str, Any]] = json.loads(out)
    return answers


def wait(what: str, until: Callable[[], Any], *, seconds: float = 240, every: float = 1) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(every)
    return found


def processes(machine: Machine, pattern: str) -> list[str]:
    found = machine.run("ps -eo pid,args").splitlines()
    return [line.split()[0] for line in found if re.search(pattern, line)]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnLaptop]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("machines")
    with machines(folder, ["head", *WORKERS, "laptop"]) as up:
        here = OnLaptop(up, folder)
        here.ray("get-auth-token", "--generate")
        here.ray("up", "--yes", "--no-config-cache", str(here.cluster))
        wait("three nodes", lambda: nodes(here) == 3)
        # As `ray attach -p 8000` does for somebody who sits there.
        tunnel = up["laptop"].start(
            f"ray exec {here.cluster} --port-forward 8000 'sleep infinity'",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield here
        finally:
            tunnel.kill()
            tunnel.wait()


def nodes(laptop: OnLaptop) -> int:
    """Those that are up; 0 too while the head, just started, has nothing to tell."""
    _, _, rest = laptop.on_head("ray status").partition("Active:")
    up, _, _ = rest.partition("Pending:")
    return sum(int(number) for number in re.findall(r"^ (\d+) local\.cluster\.node", up, re.M))


def test_an_ensemble_of_three_machines_is_deployed_and_answers(laptop: OnLaptop) -> None:
    laptop.deploy(count=SWEET)
    laptop.wait_for("count")
    [answer] = answers_of(laptop.asking("count"))
    assert (answer["text"], answer["error"]) == (NUMBERS, None)
    assert answer["members"] == {"head": "ok", "one": "ok", "two": "ok"}
    for name in ("head", *WORKERS):
        [_] = processes(laptop.machines[name], f"ServeReplica:models:member-{name}")


def test_commands_without_the_token_are_refused(laptop: OnLaptop) -> None:
    head = laptop.machines["head"]
    command = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/serve/applications/"
    assert head.run(command) == "401"
    assert head.run(f'{command} -H "Authorization: Bearer $(cat ~/.ray/auth_token)"') == "200"


def test_the_ensemble_is_changed_while_it_answers(laptop: OnLaptop) -> None:
    """The models stay as they are, and no answer fails or loses a member."""
    pids = {
        name: processes(laptop.machines[name], "ServeReplica:models:member")
        for name in ("head", *WORKERS)
    }
    stop = laptop.folder / "enough"
    asking = laptop.asking("count", until=stop)
    time.sleep(3)
    laptop.deploy(count=SWEET | {"span_words": 2}, fused=FUSE)
    laptop.wait_for("fused")
    time.sleep(5)
    stop.touch()
    answers = answers_of(asking)
    assert len(answers) >= 6
    assert [a for a in answers if a["error"] or a["text"] != NUMBERS] == []
    assert [a for a in answers if set(a["members"].values()) != {"ok"}] == []
    print(f"{len(answers)} answers, longest silence {max(a['gap'] for a in answers):.1f} s")
    [fused] = answers_of(laptop.asking("fused"))
    assert fused["text"] == NUMBERS
    for name, pid in pids.items():
        assert processes(laptop.machines[name], "ServeReplica:models:member") == pid


def test_a_job_trains_an_agent_on_the_models_that_are_served(laptop: OnLaptop) -> None:
    folder = laptop.folder / "shared"
    folder.mkdir()
    path = training_files(folder)
    serve = yaml.safe_load((folder / "serve.yaml").read_text())
    serve["applications"][0]["args"]["models_app"] = "models"
    (folder / "serve.yaml").write_text(yaml.safe_dump(serve))
    before = processes(laptop.machines["one"], "ServeReplica:models")
    training = f"orchestrion train der {path} --iterations 1"
    job = f"ray job submit --working-dir ~/orchestrion -- {training}"
    assert "succeeded" in laptop.on_head(job)
    assert load_agent(folder / "agent").members == ("a", "b")
    assert processes(laptop.machines["one"], "ServeReplica:models") == before


def test_a_machine_loses_power_in_the_middle_of_an_answer(laptop: OnLaptop) -> None:
    """No connection is closed: Ray learns it from checks that are not answered."""
    writing = laptop.folder / "writing"
    asking = laptop.asking("count", writing=writing)
    wait("the first words", writing.exists, every=0.05)
    laptop.machines["two"].power_off()
    [answer] = answers_of(asking)
    print(f"longest silence {answer['gap']:.1f} s")
    assert (answer["text"], answer["error"]) == (NUMBERS, None)
    assert answer["members"] == {"head": "ok", "one": "ok", "two": "dropped"}
    [later] = answers_of(laptop.asking("fused"))
    assert (later["text"], later["members"]["two"]) == (NUMBERS, "dropped")
    assert later["seconds"] < 60


def test_ray_down_stops_the_head_and_ray_stop_each_worker(laptop: OnLaptop) -> None:
    """On machines of one's own ``ray down`` has nothing to terminate: workers lose their head, and
    end by themselves minutes later if nobody stops them."""
    laptop.ray("down", "--yes", str(laptop.cluster))
    ray = r"raylet|gcs_server|ray::|dashboard|log_monitor"
    head, one = laptop.machines["head"], laptop.machines["one"]
    wait("no Ray on the head", lambda: not processes(head, ray))
    one.run("ray stop")
    wait("no Ray on the worker", lambda: not processes(one, ray))
