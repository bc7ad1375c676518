"""The command line, where it needs no cluster."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from deployments.cli import app as cli
from deployments.cli.ask import ColouredAnswer, Palette, ledger, to_svg
from deployments.config.app_config import AppConfig
from deployments.credentials import api_key
from deployments.http.auth.keys import KeyStore
from deployments.launch.local_ray import serving
from runtime.config.access import AccessConfig
from runtime.errors import ConfigError
from tests.support.local_stack import animals
from tests.support.paths import ROOT

runner = CliRunner()


def test_print_config_shows_what_was_resolved() -> None:
    result = runner.invoke(
        cli.app, ["serve", str(ROOT / "examples/quickstart.yaml"), "--print-config"]
    )
    assert result.exit_code == 0
    config = AppConfig.model_validate_json(result.stdout)
    assert config.ensembles["sweetspan"].members == ("smollm2", "gemma3")
    assert '"span_words": 4' in result.stdout


def test_ray_is_not_loaded_before_it_is_set_to_stay_on_loopback() -> None:
    """It reads that once, at its first import; too late, and it listens on every address."""
    script = (
        "import sys, deployments.cli, deployments.launch.local_ray, deployments.config.serve_file;"
        "print('ray' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


def test_the_generated_table_of_methods_is_fresh() -> None:
    result = runner.invoke(cli.app, ["methods", "--check", str(ROOT / "docs/methods.md")])
    assert result.exit_code == 0, "run: make docs"


def test_a_stale_table_is_reported_with_the_cure(tmp_path: Path) -> None:
    stale = tmp_path / "methods.md"
    stale.write_text("# Methods\n")
    result = runner.invoke(cli.app, ["methods", "--check", str(stale)])
    assert result.exit_code == 1
    assert "make docs" in result.output


def test_asking_where_nothing_listens_names_the_remedy() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = runner.invoke(cli.app, ["ask", "Why?", "--url", f"http://127.0.0.1:{port}/v1"])
    assert result.exit_code == 1
    assert "make serve" in result.output


def test_an_evaluation_without_questions_names_the_remedy() -> None:
    result = runner.invoke(cli.app, ["eval", str(ROOT / "examples/quickstart.yaml")])
    assert result.exit_code == 1
    assert "--questions" in result.output


def test_a_known_fault_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["orchestrion", "serve", "absent.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    values = capsys.readouterr().err
    assert "absent.yaml" in values
    assert "Traceback" not in values


def test_a_taken_port_is_reported_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = AppConfig.model_validate(animals(e={"type": "sweetspan"}))
        with pytest.raises(ConfigError, match="--port"), serving(config, port=port):
            raise AssertionError("it must not start")


def test_the_picture_of_an_answer_holds_all_of_it_in_its_authors_colours() -> None:
    answer = Text()
    for n in range(80):
        answer.append(f"word{n} ", style=("cyan", "magenta")[n % 2])
    svg = to_svg(ColouredAnswer(answer, Table()), "model: question", width=60)
    assert all(f"word{n}" in svg for n in range(80))
    assert len(set(re.findall(r"fill: (#\w+)", svg))) >= 3
    assert "font-face" not in svg


def test_accounts_say_why_a_member_was_dropped_only_when_one_was() -> None:
    member = {"model": "a", "share": 1.0, "spans": 1, "calls": 2}
    member |= {"completion_tokens": 3, "prompt_tokens": 4, "latency_ms": 5.0}
    summary = {"latency_ms": {"total": 1.0}, "method": "m", "steps": 1, "stop_reason": "eos"}
    whole = ledger(summary | {"members": [member]}, Palette())
    lost = ledger(summary | {"members": [member | {"error": "gone"}]}, Palette())
    assert [c.header for c in lost.columns[len(whole.columns) :]] == ["dropped because"]
    assert list(lost.columns[-1].cells) == ["gone"]


def test_a_new_key_comes_with_its_entry_for_the_file(tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["key", "ann"])
    key = result.output.splitlines()[0].removeprefix("# the key, shown only once: ")
    file = tmp_path / "keys.yaml"
    file.write_text("keys:\n" + result.output)
    found = KeyStore(AccessConfig(keys_file=str(file))).find(key.encode())
    assert found is not None and found.name == "ann"


def test_a_name_that_cannot_stand_in_the_file_is_refused() -> None:
    result = runner.invoke(cli.app, ["key", "two words"])
    assert isinstance(result.exception, ConfigError) and "name" in str(result.exception)


def test_clients_of_the_command_line_take_their_key_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ORCHESTRION_API_KEY", raising=False)
    assert api_key() == "none"
    monkeypatch.setenv("ORCHESTRION_API_KEY", "mine")
    assert api_key() == "mine"


def test_what_starts_a_server_and_asks_it_wants_the_key_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRION_API_KEY", raising=False)
    whole = animals() | {"gateway": {"access": {"keys_env": "MY_KEYS"}}}
    application = {"name": "a", "import_path": "deployments.app:build_app", "args": whole}
    file = tmp_path / "app.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}, allow_unicode=True))
    result = runner.invoke(cli.app, ["demo", str(file)])
    assert "set ORCHESTRION_API_KEY" in str(result.exception)
