"""A YAML file as its document and its nodes, which know the line numbers. What PyYAML would take in
silence or report without a place is an error with file, line and remedy."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from runtime.errors import ConfigError

MOST_NODES: Final = 200_000
"""With all aliases written out; a few lines of nested aliases can stand for billions."""
START: Final = "start from examples/quickstart.yaml"
MERGE: Final = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> tuple[dict[str, Any], yaml.Node]:
    """The document and its node tree. Raises ``ConfigError``."""
    text = _text(path)
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise ConfigError(f"{path} is empty; {START}")
        _check(node, path)
        try:
            document = yaml.safe_load(text)
        except ValueError:  # a date or a number that only looks like one
            raise ConfigError(_unreadable(node, path)) from None
    except yaml.YAMLError as fault:
        raise ConfigError(_described(path, text, fault)) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be read; {START}") from None
    if not isinstance(document, dict):
        line = node.start_mark.line + 1
        raise ConfigError(f"{path}:{line}: holds no mapping; {START}")
    return document, node


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ConfigError(
            f"cannot read {path}: {fault.strerror}; give the path of a YAML file"
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise ConfigError(
            f"{path}:{line}: byte {data[fault.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None


def _described(path: Path, text: str, fault: yaml.YAMLError) -> str:
    if isinstance(fault, yaml.reader.ReaderError):
        line = text.count("\n", 0, fault.position) + 1
        return f"{path}:{line}: character {fault.character:#x} is not allowed in YAML; remove it"
    if not isinstance(fault, yaml.MarkedYAMLError) or fault.problem_mark is None:
        return f"{path} is not valid YAML: {fault}; {START}"
    at = fault.problem_mark.line
    lines = text.splitlines()
    context = f" {fault.context}," if fault.context else ""
    if fault.context_mark is not None and fault.context_mark.line != at:
        context = f" {fault.context} that begins in line {fault.context_mark.line + 1},"
    remedy = "check indentation, colons and quotes there and in the line before"
    if at < len(lines) and "\t" in lines[at][: len(lines[at]) - len(lines[at].lstrip())]:
        remedy = "indent with spaces, not with tabs"
    elif "undefined alias" in (fault.problem or ""):
        remedy = "define it with & before, or put text that begins with * into quotes"
    elif "determine a constructor" in (fault.problem or ""):
        remedy = "leave tags such as !!python out"
    return f"{path}:{at + 1}: not valid YAML:{context} {fault.problem}; {remedy}"


def _unreadable(root: yaml.Node, path: Path) -> str:
    constructor, nodes = yaml.SafeLoader(""), [root]
    while nodes:
        node = nodes.pop()
        nodes += reversed(_children(node, path))
        try:
            if isinstance(node, yaml.ScalarNode):
                constructor.construct_object(node)
        except ValueError:
            line = node.start_mark.line + 1
            return f"{path}:{line}: {node.value[:40]!r} is no date or number; put it into quotes"
    return f"{path} holds a date or number that cannot be read; put it into quotes"


def _check(root: yaml.Node, path: Path) -> None:
    """Keys that stand twice, of which PyYAML takes the last, and aliases that have no end."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node) -> int:
        place = id(node)
        line = node.start_mark.line + 1
        if place in above:
            raise ConfigError(
                f"{path}:{line}: an alias stands for what it is part of; write it out"
            )
        if place not in sizes:
            above.add(place)
            sizes[place] = 1 + sum(size(child) for child in _children(node, path))
            above.remove(place)
        if sizes[place] > MOST_NODES:
            raise ConfigError(
                f"{path}:{line}: aliases make this more than {MOST_NODES} values; use fewer"
            )
        return sizes[place]

    size(root)


def _children(node: yaml.Node, path: Path) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    first: dict[Hashable, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
            continue
        if key.value in first:
            raise ConfigError(
                f"{path}:{line}: {key.value}: stands twice, in line {first[key.value]} too; "
                "only one can count, so remove or rename the other"
            )
        first[key.value] = line
    return [child for pair in node.value for child in pair]
