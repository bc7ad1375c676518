"""Every file of examples/ runs: configurations answer, clients ask. Training files are run by the
blocks of docs/der.md and docs/citer.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.config.serve_file import load
from deployments.launch.in_process import LocalStack
from runtime.types.query import Message
from tests.docs.blocks import ROOT, Block, pages, read_blocks
from tests.docs.running import Servers, run_block
from tests.support.local_stack import ask

EXAMPLES = ROOT / "examples"
SERVED = sorted(
    path for path in EXAMPLES.glob("*.yaml") if "applications" in yaml.safe_load(path.read_text())
)
TRAINED = sorted(set(EXAMPLES.glob("*.yaml")) - set(SERVED))
CLIENTS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != "__init__.py")
SLOW_METHODS = ("eva", "deepen")
"""They prepare vocabularies for minutes where nothing is cached; tests/integration/zoo has them."""


def _marks(path: Path) -> list[pytest.MarkDecorator]:
    if "pypi:" not in path.read_text():
        return [pytest.mark.zoo]
    return [pytest.mark.pretrained]


@pytest.mark.parametrize("path", SERVED, ids=lambda path: path.name)
def test_doctor_judges_it(path: Path) -> None:
    """Nothing in it is wrong but what this machine lacks."""
    result = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "doctor", str(path), "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode in (0, 1), result.stderr[-2000:]
    assert json.loads(result.stdout), "doctor printed nothing"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=_marks(path))
        for path in SERVED
        if "vllm" not in path.name
    ],
)
async def test_each_of_its_ensembles_answers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, without Ray."""
    monkeypatch.chdir(ROOT)
    config = load(path)[1]
    kept = {
        name: ensemble.model_copy(update={"n_iter": 4}) if ensemble.type == "le-mcts" else ensemble
        for name, ensemble in config.ensembles.items()
        if ensemble.type not in SLOW_METHODS
    }
    stack = LocalStack(config.model_copy(update={"ensembles": kept}))
    try:
        for name in kept:
            messages = (Message("user", "What is the capital of France?"),)
            answer = await ask(stack, name, messages=messages, max_tokens=6)
            assert answer.text or answer.end.stop_reason == "eos", name
    finally:
        await stack.close()


@pytest.mark.zoo
@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: path.name)
def test_a_client_prints_an_answer(path: Path, tmp_path: Path, servers: Servers) -> None:
    command = f"python {path.relative_to(ROOT)}\n"
    block = Block(
        f"examples/{path.name}", 1, "sh", command, "quick", server="examples/zoo_two_hop.yaml"
    )
    assert run_block(block, tmp_path, servers).strip()


def test_every_training_file_is_run_by_a_block() -> None:
    blocks = [block for page in pages() for block in read_blocks(page)]
    run = [block for block in blocks if block.kind in ("quick", "slow")]
    for path in TRAINED:
        name = str(path.relative_to(ROOT))
        assert any("orchestrion train" in block.text and name in block.text for block in run), name
