"""The wheel: what is in it, and that it works where nothing else of this repository is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.serve import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOMS = ("runtime", "policies", "envs", "deployments")


def run(
    *command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist, of a copy of what git knows."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    known = run("git", "ls-files", "-z", *ROOMS, "pyproject.toml", "MANIFEST.in", "README.md")
    for name in [*known.stdout.rstrip("\0").split("\0"), "LICENSE", "examples/quickstart.yaml"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=source)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [wheel] = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the wheel and what the wheel itself asks for."""
    venv = tmp_path_factory.mktemp("venv")
    uv = [sys.executable, "-P", "-m", "uv"]
    run(*uv, "venv", "--clear", "--seed", "--python", sys.executable, venv)
    run(sys.executable, ROOT / ".ci" / "link_package.py", "torch", venv)
    install = [*uv, "pip", "install", "--python", venv / "bin" / "python", "--no-sources"]
    run(*install, "--constraints", ROOT / "locks" / "install.txt", f"{wheel}[local]")
    return venv


def alone(venv: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """The installed command in an empty folder, where nothing leads to the repository."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return run(venv / "bin" / "orchestrion", *command, cwd=cwd, env=env)


def test_twine_finds_nothing_wrong(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(built.iterdir()))


def test_the_wheel_has_markers_licence_and_configurations_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"{room}/py.typed" for room in ROOMS} <= set(names)
    assert "deployments/recipes/quickstart.yaml" in names
    assert "deployments/grafana/orchestrion.json" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(ROOMS)
    sources = {
        str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py")
    }
    assert sources <= set(names)


def test_the_sdist_builds_without_the_repository(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    assert {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "deployments/recipes/quickstart.yaml",
    } <= names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)


def test_version_is_said_the_same_everywhere(wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert re.search(rf"(?m)^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text())
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_installed_alone_knows_its_machine(venv: Path, tmp_path: Path) -> None:
    result = alone(venv, tmp_path, "doctor").stdout
    assert "transformers" in result and "torch" in result


@pytest.mark.pretrained
def test_the_wheel_installed_alone_runs_the_demo(venv: Path, tmp_path: Path) -> None:
    result = alone(venv, tmp_path, "demo", "--max-tokens", "12", "--port", str(free_port()))
    assert "specfuse" in result.stdout and "smollm2" in result.stdout
