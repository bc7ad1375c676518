"""The files for ``ray up``, as far as they can be checked without machines."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from packaging.requirements import Requirement
from packaging.version import Version

from tests.integration.clusters.autoscaler import prepared
from tests.support.paths import ROOT

AWS = ROOT / "cluster.yaml"
OWN = ROOT / "deployments/clusters/on_premises.yaml"
IMAGE = ROOT / "deployments/clusters/Dockerfile"
BOTH = pytest.mark.parametrize("path", [AWS, OWN], ids=lambda path: path.stem)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHIPPED = ("runtime", "policies", "envs", "deployments")
"""The packages; what pyproject.toml itself reads comes with them."""


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


@BOTH
def test_ray_takes_the_file(path: Path) -> None:
    config = prepared(path)
    assert config["cluster_name"] == "orchestrion"
    assert config["head_node_type"] in config["available_node_types"]


def test_ray_refuses_a_key_that_it_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "cluster.yaml"
    wrong.write_text(yaml.safe_dump(read(AWS) | {"idle_timeout_minuts": 5}))
    with pytest.raises(ValidationError, match="idle_timeout_minuts"):
        prepared(wrong)


def test_the_workers_of_ones_own_machines_all_join_and_stay() -> None:
    config = prepared(OWN)
    [kind] = config["available_node_types"].values()
    workers = len(read(OWN)["provider"]["worker_ips"])
    assert workers == 3
    assert kind["min_workers"] == kind["max_workers"] == config["max_workers"] == workers


def test_gpu_workers_come_and_go_and_the_head_is_no_worker() -> None:
    config = prepared(AWS)
    kinds = config["available_node_types"]
    head = kinds.pop(config["head_node_type"])
    assert (head["max_workers"], head["resources"]["CPU"]) == (0, 0)
    for name, kind in kinds.items():
        assert kind["min_workers"] == 0
        assert kind["resources"] == {name: 1}, "members are pinned by the node type's name"
    assert sum(kind["max_workers"] for kind in kinds.values()) == config["max_workers"]
    assert kinds["l4"]["max_workers"] >= 3, "deployments/recipes/gpu_7b_trio.yaml takes three"
    several = [name for name, kind in kinds.items() if kind["max_workers"]]
    assert several == ["l4"], "an unpinned member could land on a dearer card"


def test_ray_opens_nothing_to_the_world_by_itself() -> None:
    """Where a node type names no security group, Ray makes one that lets in SSH from anywhere."""
    document = read(AWS)
    assert "security_group" not in document["provider"]
    for kind in document["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"]
        assert "NetworkInterfaces" not in kind["node_config"]
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


@BOTH
def test_the_dashboard_answers_the_head_only_and_everything_asks_for_the_token(path: Path) -> None:
    document = read(path)
    [head] = [c for c in document["head_start_ray_commands"] if "ray start" in c]
    [worker] = [c for c in document["worker_start_ray_commands"] if "ray start" in c]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head, "or no worker is started"
    assert "--address=$RAY_HEAD_IP:6379" in worker and "--port=6379" in head
    profile = next(c for c in document["setup_commands"] if "RAY_AUTH_MODE" in c)
    assert "RAY_AUTH_MODE=token" in profile and "> ~/.orchestrion_profile" in profile
    assert document["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@BOTH
def test_all_that_is_installed_is_brought_and_nothing_else(path: Path) -> None:
    mounts = {k: v for k, v in read(path)["file_mounts"].items() if "auth_token" not in k}
    assert mounts == {f"~/orchestrion/{name}": name for name in mounts.values()}
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", *SHIPPED}
    assert needed <= set(mounts.values())
    for name in mounts.values():
        assert (ROOT / name).exists(), name
    text = IMAGE.read_text()
    for name in mounts.values():
        assert re.search(rf"^COPY .*\b{re.escape(name)}\b", text, re.M), (
            f"{name} is not in the image"
        )


def installs(text: str) -> list[Requirement]:
    """What the files install with pip; the project itself as ``orchestrion``."""
    [line] = [
        line for line in text.splitlines() if "pip install" in line and "orchestrion[" in line
    ]
    words = [w for w in shlex.split(line[line.index("pip install") :]) if "[" in w]
    return [Requirement(re.sub(r"^.*/(?=orchestrion\[)", "", word)) for word in words]


@pytest.mark.parametrize("path", [AWS, OWN, IMAGE], ids=lambda path: path.stem)
def test_one_ray_is_installed_and_it_is_the_one_that_the_project_wants(path: Path) -> None:
    ray, project = installs(path.read_text())
    [pinned] = ray.specifier
    assert (ray.name, pinned.operator) == ("ray", "==")
    wants = [Requirement(r) for r in PROJECT["dependencies"]]
    wants += [Requirement(r) for r in PROJECT["optional-dependencies"]["train"]]
    wanted = [want for want in wants if want.name == "ray"]
    assert {"serve", "rllib"} == ray.extras == set().union(*(want.extras for want in wanted))
    assert all(Version(pinned.version) in want.specifier for want in wanted)
    assert project.extras == {"local", "vllm", "train"} <= set(PROJECT["optional-dependencies"])
    for version in re.findall(r"rayproject/ray:([\d.]+)-", path.read_text()):
        assert version == pinned.version
