"""Which room may import which; docs/structure.md draws the arrows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ROOMS = {"runtime", "policies", "envs", "deployments"}
MAY_IMPORT = {
    "runtime": {"runtime"},
    "policies": {
        "policies",
        "runtime.types",
        "runtime.session",
        "runtime.config",
        "runtime.errors",
        "runtime.text",
        # What methods over several vocabularies stand on
        "runtime.tokenization",
        "runtime.rng",
        "runtime.vocab",
        # What training has left
        "runtime.artifacts",
        "runtime.concurrency",
    },
    "envs": {"envs", "policies", "runtime"},
    "deployments": ROOMS,
}
FORBIDDEN_IN_POLICIES = {"ray", "vllm", "fastapi", "transformers"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_the_rooms_it_may(room: str) -> None:
    for path in sources(room):
        for module in imports(path):
            if module.split(".")[0] in ROOMS:
                allowed = any(
                    module == may or module.startswith(may + ".") for may in MAY_IMPORT[room]
                )
                assert allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_policies_know_nothing_of_ray_engines_or_http() -> None:
    for path in sources("policies"):
        taboo = {module.split(".")[0] for module in imports(path)} & FORBIDDEN_IN_POLICIES
        assert not taboo, f"{path.relative_to(ROOT)} imports {taboo}"


def test_a_coordinator_process_loads_neither_torch_nor_transformers() -> None:
    script = (
        "import sys, deployments.wiring, deployments.config, deployments.http.gateway;"
        "print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
