"""Which module imports which, read from the sources without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """``source`` imports ``target``, both dotted names of modules; ``late`` inside a function."""

    source: str
    target: str
    path: str
    line: int
    late: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.source} imports {self.target}"


def modules(root: Path, rooms: Iterable[str]) -> dict[str, Path]:
    """All modules of the rooms by dotted name; a package is its ``__init__``."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for room in rooms
        for path in sorted((root / room).rglob("*.py"))
    }


def imports(root: Path, rooms: Iterable[str]) -> list[Import]:
    """All imports of the rooms' modules, of other packages too, also those under TYPE_CHECKING."""
    known = modules(root, rooms)
    return [
        Import(source, target, str(path.relative_to(root)), line, late)
        for source, path in known.items()
        for target, line, late in _targets(ast.parse(path.read_text()), source, path, known)
    ]


def _targets(
    node: ast.AST, source: str, path: Path, known: Mapping[str, Path], late: bool = False
) -> Iterator[tuple[str, int, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name, child.lineno, late
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(child, source, path)
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield (full if full in known else base), child.lineno, late
        inside = late or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _targets(child, source, path, known, inside)


def _absolute(node: ast.ImportFrom, source: str, path: Path) -> str:
    if not node.level:
        return node.module or ""
    parts = source.split(".") + ["__init__"] * (path.name == "__init__.py")
    return ".".join([*parts[: -node.level], *filter(None, [node.module])])


def circles(found: Iterable[Import]) -> list[list[str]]:
    """Groups of modules that reach each other (strongly connected components, Tarjan 1972)."""
    graph: dict[str, set[str]] = {}
    for one in found:
        graph.setdefault(one.source, set()).add(one.target)
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        stack.append(name)
        for target in sorted(graph.get(name, ())):
            if target not in index:
                visit(target)
            if target in stack:
                lowest[name] = min(lowest[name], lowest[target])
        if lowest[name] == index[name]:
            at = stack.index(name)
            group, stack[at:] = stack[at:], []
            if len(group) > 1 or name in graph.get(name, ()):
                groups.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return groups


def upward(found: Iterable[Import], package: str, rows: Sequence[str]) -> list[str]:
    """Imports between the parts of ``package`` that do not point to a lower row. ``rows`` name the
    parts, the highest first; ``*`` stands for all that no row names, ``__init__`` for the package's
    own file. Without ``*``, a part that no row names is an offence of its own."""
    height = {part: -number for number, row in enumerate(rows) for part in row.split()}

    def part(module: str) -> str | None:
        if module == package:
            return "__init__"
        return (
            module[len(package) + 1 :].split(".")[0] if module.startswith(package + ".") else None
        )

    offences = []
    for one in found:
        source, target = part(one.source), part(one.target)
        if source is None or target is None or source == target:
            continue
        for name in (source, target):
            if name not in height and "*" not in height:
                offences.append(f"{one.path}: no row of {package} names {name!r}")
        high, low = (height.get(name, height.get("*", 0)) for name in (source, target))
        if low >= high:
            offences.append(str(one))
    return list(dict.fromkeys(offences))
