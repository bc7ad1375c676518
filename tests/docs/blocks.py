"""The fenced blocks of the documentation, each with the marker that says how it is tested.

A marker is an HTML comment in the line before the fence, which no reader sees:

    <!-- run: quick -->

or with more, in this order, parted by semicolons:

    <!-- run: slow; needs pretrained; server examples/quickstart.yaml; add ask --max-tokens 8 -->

How (the first word):

- ``quick``   runs with ``make test``; takes seconds.
- ``slow``    runs with ``make test-slow``.
- ``gpu``, ``cloud``   needs what a test has not, or is what .ci/run itself runs; commands are
  parsed as their programs do.
- ``config``  YAML or PromQL, read by what reads it in earnest; members that it does not show are
  put in.
- ``text``    a diagram or sample output, with no command in it. A fence of the language ``text``
  says so itself.

What else a block that runs may say:

- ``needs pretrained`` or ``needs vllm``   the test has that marker too.
- ``server FILE``   a Serve config that answers in one process, at the page's own address
  (127.0.0.1:8000, which the test replaces by a free port everywhere). Blocks share it.
- ``before FILE``   of tests/docs/before/: Python that stands before the block.
- ``add WORD FLAGS``   appends flags to each command with that word, such as ``add eval --limit 4``.
- ``put TEXT = TEXT``   replaces a placeholder.
- ``edit FILE TEXT = TEXT``   the same in a file of the copy, such as a smaller number of steps.
- ``first N FILES``   leaves the first lines only of files of the copy.
- ``take NAME = PATTERN``   replaces a placeholder by the first group of a regular expression, found
  in what the block's commands printed before.
- ``as keys | yaml``   of ``config``: a file of API keys, or another program's YAML.

A block is run in a copy of the repository, with this environment as its ``.venv``. ``make TARGET``
runs what ``make -n TARGET`` prints. ``orchestrion serve`` runs until the block ends. pytest only
collects: the suite does not run within itself.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "examples/zoo/README.md")
KINDS = ("quick", "slow", "gpu", "cloud", "config", "text")
MARKER = re.compile(r"<!--\s*run:\s*(.*?)\s*-->")
FENCE = re.compile(r"^(\s*)(```+)\s*(\w*)\s*$")


class MarkerError(Exception):
    """A block without a marker, or one that cannot be read; names file and line."""


@dataclass(frozen=True)
class Block:
    """``text`` is without the fence and its indentation; ``line`` is the fence's, from 1."""

    page: str
    line: int
    language: str
    text: str
    kind: str
    needs: tuple[str, ...] = ()
    server: str | None = None
    before: str | None = None
    read_as: str | None = None
    add: tuple[tuple[str, str], ...] = ()
    put: tuple[tuple[str, str], ...] = ()
    edit: tuple[tuple[str, str], ...] = ()
    """File and text, and what stands there instead."""
    first: tuple[tuple[str, str], ...] = ()
    take: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass
class _Options:
    needs: list[str] = field(default_factory=list)
    server: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    read_as: list[str] = field(default_factory=list)
    add: list[tuple[str, str]] = field(default_factory=list)
    put: list[tuple[str, str]] = field(default_factory=list)
    edit: list[tuple[str, str]] = field(default_factory=list)
    first: list[tuple[str, str]] = field(default_factory=list)
    take: list[tuple[str, str]] = field(default_factory=list)


def pages(root: Path = ROOT) -> list[Path]:
    return sorted(page for pattern in PAGES for page in root.glob(pattern))


def read_blocks(page: Path, root: Path = ROOT) -> list[Block]:
    """All of a page. Raises ``MarkerError``."""
    name = str(page.relative_to(root))
    lines = page.read_text().splitlines()
    blocks, before, at = [], "", 0
    while at < len(lines):
        opening = FENCE.match(lines[at])
        if opening is None:
            before = lines[at] if lines[at].strip() else before
            at += 1
            continue
        first = at
        at += 1
        while at < len(lines) and lines[at].strip() != opening[2]:
            at += 1
        if at == len(lines):
            raise MarkerError(f"{name}:{first + 1}: this fence is never closed")
        text = textwrap.dedent("\n".join(lines[first + 1 : at])) + "\n"
        blocks.append(_block(name, first + 1, opening[3], text, before))
        before = ""
        at += 1
    return blocks


def _block(page: str, line: int, language: str, text: str, before: str) -> Block:
    found = MARKER.fullmatch(before.strip())
    if found is None:
        if language == "text":
            return Block(page, line, language, text, "text")
        raise MarkerError(
            f"{page}:{line}: this block has no marker; put <!-- run: KIND --> into the line before "
            f"it, KIND being one of {', '.join(KINDS)} (tests/docs/blocks.py)"
        )
    kind, *items = (item.strip() for item in found[1].split(";"))
    if kind not in KINDS:
        raise MarkerError(f"{page}:{line}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    options = _Options()
    for item in items:
        word, _, rest = item.partition(" ")
        if word in ("needs", "server", "before") and rest:
            getattr(options, word).append(rest)
        elif word == "as" and rest in ("keys", "yaml"):
            options.read_as.append(rest)
        elif word in ("add", "first") and " " in rest:
            name, _, value = rest.partition(" ")
            getattr(options, word).append((name, value))
        elif word in ("put", "take", "edit") and " = " in rest:
            name, _, value = rest.partition(" = ")
            getattr(options, word).append((name, value))
        else:
            raise MarkerError(f"{page}:{line}: cannot read {item!r} (tests/docs/blocks.py)")
    return Block(
        page,
        line,
        language,
        text,
        kind,
        tuple(options.needs),
        *(next(iter(some), None) for some in (options.server, options.before, options.read_as)),
        tuple(options.add),
        tuple(options.put),
        tuple(options.edit),
        tuple(options.first),
        tuple(options.take),
    )


def lines_of(text: str) -> list[str]:
    """The commands of a block: without comments, continued lines joined."""
    joined = text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.split("#")[0].strip()]
