"""A search over HTTP: comments while nothing is written, its tree in the trace, and shown."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from rich.console import Console
from typer.testing import CliRunner

from deployments.cli import tree as trees
from deployments.cli.app import app
from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from policies.process import le_mcts
from policies.process.node import ROOT, Rules
from policies.process.tree import Tree
from runtime.errors import ConfigError
from tests.support.http.ensembles import served
from tests.support.models.maze import GOLD, maze

ASK = [{"role": "user", "content": "Which way?"}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(le_mcts, "PROGRESS_S", 0.0)
        stack = LocalStack(AppConfig.model_validate(maze(search={}, ebs={"type": "ebs"})))
        with served(stack.api()) as base:
            yield f"{base}/v1"
        asyncio.run(stack.close())


def params(url: str, **fields: Any) -> Any:
    """A reply, or the chunks of a streamed one."""
    with OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        reply = client.chat.completions.create(model="search", messages=ASK, **fields)  # type: ignore
        return list(reply) if fields.get("stream") else reply


def test_steps_stream_after_comments_that_clients_drop(url: str) -> None:
    body = {"model": "search", "messages": ASK, "stream": True}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    raw = urllib.request.urlopen(request, timeout=60).read().decode()
    comments = re.findall(r"^: progress (\d+)/200$", raw, re.MULTILINE)
    assert [int(number) for number in comments] == list(range(1, len(comments) + 1))
    assert len(comments) > 4 and raw.rindex(": progress") < raw.index('"up\\n"')
    assert '"progress"' not in raw
    stream = params(url, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == GOLD


def test_a_full_trace_reports_progress_in_chunks_too(url: str) -> None:
    result, text = [], ""
    for chunk in params(url, stream=True, extra_body={"ensemble": {"trace": "full"}}):
        text += chunk.choices[0].delta.content or ""
        progress = ((chunk.model_extra or {}).get("ensemble") or {}).get("progress")
        if progress is not None:
            result.append(progress)
    assert text == GOLD
    assert [entry["done"] for entry in result] == list(range(1, len(result) + 1))
    assert result[-1]["answers"] >= 1 and result[-1]["best"] == pytest.approx(0.95, abs=1e-3)
    assert result[-1]["total"] == 200


def trace_of(url: str) -> str:
    reply = params(url, extra_body={"ensemble": {"trace": "full"}})
    return str(reply.model_extra["ensemble"]["trace_id"])


class Words(HTMLParser):
    """The text of a page, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.open = "", list[str]()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_tree_can_be_looked_at(url: str, tmp_path: Path) -> None:
    trace = trace_of(url)
    found, summary = trees.fetch(url, trace)
    assert summary["method"] == "le-mcts" and found.text(found.best().id) == GOLD
    shown = CliRunner().invoke(app, ["tree", trace, "--url", url])
    assert shown.exit_code == 0
    assert shown.output.count("●") == 3 and "■ answer" in shown.output
    assert len(shown.output.strip().splitlines()) == len(found.nodes)
    files = {"svg": tmp_path / "t.svg", "html": tmp_path / "t.html"}
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    assert CliRunner().invoke(app, ["tree", trace, "--url", url, *options]).exit_code == 0
    picture = files["svg"].read_text()
    assert "Answer:" in picture and "@import" not in picture and "url(http" not in picture
    page = Words()
    page.feed(files["html"].read_text())
    assert not page.open
    for step in found:
        assert step.text.strip() in page.text
    shallow = Console(record=True, width=100, file=StringIO())
    shallow.print(trees.lines(found, depth=1))
    assert shallow.export_text().count("N ") == len(found.nodes[ROOT].children)


def test_text_of_models_stays_text() -> None:
    tree = Tree()
    tree.begin(ROOT, "<b>")
    tree.grow(ROOT, "<b>", "<script>alert(1)</script>[red]\n", 0.5, Rules())
    page = Words()
    page.feed(trees.page(tree, "<i>"))
    assert "<script>alert(1)</script>[red]" in page.text and "<i>" in page.text
    assert not page.open
    console = Console(record=True, width=100, file=StringIO())
    console.print(trees.lines(tree))
    assert "[red]" in console.export_text()


def test_what_has_no_tree_says_what_to_do(url: str) -> None:
    plain = params(url).model_extra["ensemble"]["trace_id"]
    with pytest.raises(ConfigError, match="--full-trace"):
        trees.fetch(url, plain)
    with pytest.raises(ConfigError, match="has no trace 'nobody'"):
        trees.fetch(url, "nobody")
    with pytest.raises(ConfigError, match="no server at"):
        trees.fetch("http://127.0.0.1:9/v1", "x")
