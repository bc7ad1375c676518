"""``orchestrion doctor`` on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from deployments.cli import app as cli
from deployments.doctor.facts import Finding
from tests.support.invented_machines import (
    the_only,
    wrong,
)
from tests.support.paths import ROOT


def test_a_configuration_that_cannot_be_read_is_one_more_finding(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("applications: 3")
    result = CliRunner().invoke(cli.app, ["doctor", str(broken), "--json"])
    assert result.exit_code == 1
    assert (
        "examples/quickstart.yaml"
        in the_only(
            [Finding(**finding) for finding in json.loads(result.stdout)["findings"]], "config"
        ).found
    )


def test_the_command_tells_this_machine_and_the_zoo_without_loading_torch_or_ray() -> None:
    script = (
        "import sys; from deployments.cli import main\n"
        "try: main()\n"
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
    assert the_only(findings, "python").level == "ok"
    assert "weights here" in the_only(findings, "capitals").found


def test_lines_for_people_show_the_remedy_below_the_finding() -> None:
    from deployments.doctor.report import as_lines

    lines = as_lines([Finding("wrong", "ray", "gone", "pip install ray")]).splitlines()
    assert lines[0].endswith("ray  gone") and lines[1].strip() == "-> pip install ray"
