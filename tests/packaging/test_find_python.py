"""Which Python ``make install`` takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / ".ci" / "find_python.sh"
HERE = sys.executable


def find(path: Path, *request: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}:/usr/bin:/bin"}
    return subprocess.run([SCRIPT, *request], env=environment, capture_output=True, text=True)


def stands_in(path: Path, name: str, script: str) -> None:
    """A command that stands for an interpreter."""
    command = path / name
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def says(version: tuple[int, int, int], without: str = "") -> str:
    """An interpreter of that version, which may lack a module."""
    before = f"import sys; sys.version_info = {version}; sys.modules.update({{{without}}})"
    return f'exec "{HERE}" -c "{before}; exec(sys.argv[1])" "$2"'


@pytest.mark.parametrize("newest", ["python3.13", "python3.12", "python3.11"])
def test_the_newest_that_is_there_is_taken(tmp_path: Path, newest: str) -> None:
    for minor in (11, 12, 13):
        if f"python3.{minor}" <= newest:
            stands_in(tmp_path, f"python3.{minor}", says((3, minor, 1)))
        else:
            stands_in(tmp_path, f"python3.{minor}", "echo 'pyenv: not found' >&2; exit 127")
    assert find(tmp_path).stdout.strip() == newest


def test_the_one_that_is_requested_is_taken(tmp_path: Path) -> None:
    stands_in(tmp_path, "python3.13", says((3, 13, 1)))
    stands_in(tmp_path, "mine", says((3, 12, 4)))
    assert find(tmp_path, "mine").stdout.strip() == "mine"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (says((3, 10, 13)), "mine is version 3.10.13"),
        (says((3, 14, 0)), "mine is version 3.14.0"),
        (says((3, 12, 0), "'ensurepip': None"), "apt install mine-venv"),
        ("echo 'pyenv: mine: command not found' >&2; exit 127", "mine does not run: pyenv: mine"),
    ],
)
def test_another_is_refused_with_the_reason_and_a_remedy(
    tmp_path: Path, script: str, reason: str
) -> None:
    stands_in(tmp_path, "mine", script)
    refused = find(tmp_path, "mine")
    assert refused.returncode == 1 and refused.stdout == ""
    assert reason in refused.stderr
    assert "make install PYTHON=" in refused.stderr


def test_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused = find(tmp_path, "nowhere")
    assert refused.returncode == 1 and "nowhere is not there" in refused.stderr


def test_this_python_is_one_of_them() -> None:
    done = subprocess.run([SCRIPT, HERE], env=dict(os.environ), capture_output=True, text=True)
    assert done.stdout.strip() == HERE, done.stderr
