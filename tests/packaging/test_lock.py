"""The lock fits what pyproject.toml asks for, on every Python and system that it is for."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

FILES = ("install", "vllm-cpu")


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / ".ci" / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pinned(lock: ModuleType, name: str, environment: dict[str, str]) -> dict[str, str]:
    """Versions by name, in an environment."""
    found: dict[str, str] = {}
    for requirement, hashes in lock.blocks((ROOT / "locks" / f"{name}.txt").read_text()):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            [specifier] = requirement.specifier
            assert specifier.operator == "==" and hashes, requirement
            assert requirement.name not in found, f"{requirement.name} is pinned twice"
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def test_the_lock_is_of_this_pyproject(lock: ModuleType) -> None:
    assert lock.check() == 0, "run: make lock"


@pytest.mark.parametrize("name", FILES)
def test_the_lock_has_what_is_requested_on_every_python(lock: ModuleType, name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    parts = ["local", "dev", "train", "otel", "lm-eval"]
    parts += ["vllm-cpu"] if name == "vllm-cpu" else []
    wanted = [*project["dependencies"], *(line for part in parts for line in extras[part])]
    for environment in lock.environments():
        versions = pinned(lock, name, environment)
        for requirement in map(Requirement, wanted):
            elsewhere = requirement.marker and not requirement.marker.evaluate(environment)
            if elsewhere or requirement.name in ("orchestrion", "torch"):
                continue
            version = versions.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} is not in {name}.txt for {environment}"
            assert requirement.specifier.contains(version, prereleases=True), requirement


def test_vllm_changes_no_version_that_is_installed(lock: ModuleType) -> None:
    for environment in lock.environments():
        before, after = (pinned(lock, name, environment) for name in FILES)
        assert before.items() <= after.items()


@pytest.mark.parametrize("name", [*FILES, "uv"])
def test_the_lock_names_no_index_and_no_build_of_torch(lock: ModuleType, name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    assert "://" not in text
    assert not re.findall(r"(?m)^(?:torch|triton|nvidia-|cuda-)(?!test).*", text)


def test_a_marker_is_written_as_short_as_it_can_be(lock: ModuleType) -> None:
    marker = Requirement(
        "x; python_full_version >= '3.12' and (sys_platform == 'linux' or sys_platform == 'darwin')"
    ).marker
    assert str(lock.shortest(marker)) == 'python_version >= "3.12"'
    assert lock.shortest(Requirement("x; implementation_name == 'cpython'").marker) is None
