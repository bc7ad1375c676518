"""Where files stand and what they may import; docs/structure.md draws the arrows."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.support.import_graph import Import, circles, imports, modules, upward
from tests.support.paths import ROOT

MOST_MODULES: Final = 16
"""In a folder, without ``__init__.py``."""
MOST_LINES: Final = 300
ROOMS: Final = ("deployments", "envs", "policies", "runtime")
"""The highest first. No room imports a higher one, nor what is no room of the product."""
FOLDERS: Final = (*ROOMS, "tests")
OUTSIDE: Final = {"tests", "benchmarks", "examples"}

ORDER: Final[dict[str, tuple[str, ...]]] = {
    "deployments": (
        "cli",
        "doctor training",
        "launch",
        "app",
        "models",
        "serving",
        "http evaluation",
        "config handles wiring credentials progress grafana __init__",
    ),
    "deployments.http": (
        "gateway",
        "auth streaming request_id request_tracing",
        "errors model_catalog",
        "openai answerer admission trace_store __init__",
    ),
    "envs": ("dynamic_ensemble token_routing", "training", "members quality __init__"),
    "policies": ("__init__", "cascade process single span token", "base"),
    # The asterisk is a method.
    "policies.token": ("packllm", "eva", "*", "deferral fusion numerics __init__"),
    "runtime": (
        "coordinator",
        "session",
        "encoders rewards",
        "calls vocab",
        "engines",
        "observability text",
        "config tokenization",
        "types",
        "artifacts data weights",
        "call_context concurrency errors rng __init__",
    ),
    "tests": ("*", "support __init__"),
    "tests.integration": ("*",),
}
"""Rows of each package, the highest first: a part imports only parts of lower rows."""
MAY_IMPORT: Final = {
    "policies": (
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
    ),
}
"""Rooms that do not see all of what is below them."""
FORBIDDEN: Final = {"policies": {"ray", "vllm", "fastapi", "starlette", "torch", "transformers"}}


def crowded(root: Path, folders: Iterable[str]) -> list[str]:
    counts = Counter(
        path.parent.relative_to(root)
        for path in modules(root, folders).values()
        if path.name != "__init__.py"
    )
    return [
        f"{folder}/ holds {count} modules, more than {MOST_MODULES}: group them in packages"
        for folder, count in sorted(counts.items())
        if count > MOST_MODULES
    ]


def long(root: Path, folders: Iterable[str]) -> list[str]:
    lines = {path: path.read_text().count("\n") for path in modules(root, folders).values()}
    return [
        f"{path.relative_to(root)} has {count} lines, more than {MOST_LINES}: split it by idea"
        for path, count in sorted(lines.items())
        if count > MOST_LINES
    ]


def circular(root: Path, rooms: Iterable[str]) -> list[str]:
    """Imports inside functions do not count, those under TYPE_CHECKING do."""
    at_once = [one for one in imports(root, rooms) if not one.late]
    offences = []
    for group in circles(at_once):
        inside = [str(one) for one in at_once if {one.source, one.target} <= set(group)]
        offences.append("a circle: " + "; ".join(inside))
    return offences


def between_rooms(found: Iterable[Import]) -> list[str]:
    """Imports of higher rooms, of what is no room, and of what the room may not see."""
    offences = []
    for one in found:
        room, other = one.source.split(".")[0], one.target.split(".")[0]
        if room not in ROOMS:
            continue
        higher = other in ROOMS and ROOMS.index(other) < ROOMS.index(room)
        seen = MAY_IMPORT.get(room)
        hidden = seen and other in ROOMS and not any(_within(one.target, may) for may in seen)
        if higher or hidden or other in OUTSIDE or other in FORBIDDEN.get(room, ()):
            offences.append(str(one))
    return offences


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def tree(root: Path, **files: str) -> Path:
    """Files by name, two underscores for a slash."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(scope="module")
def found() -> list[Import]:
    return imports(ROOT, FOLDERS)


def test_no_folder_is_crowded() -> None:
    assert not crowded(ROOT, FOLDERS)


def test_a_crowded_folder_is_named(tmp_path: Path) -> None:
    files = {f"runtime__text__file{n}": "" for n in range(MOST_MODULES)}
    tree(tmp_path, **files)
    (tmp_path / "runtime/text/__init__.py").touch()
    assert not crowded(tmp_path, ["runtime"])
    [offence] = crowded(tree(tmp_path, runtime__text__more=""), ["runtime"])
    assert offence.startswith("runtime/text/ holds 17 modules")


def test_no_file_is_long() -> None:
    assert not long(ROOT, FOLDERS)


def test_a_long_file_is_named(tmp_path: Path) -> None:
    tree(tmp_path, runtime__a="\n" * MOST_LINES, runtime__b="\n" * (MOST_LINES + 1))
    [offence] = long(tmp_path, ["runtime"])
    assert offence.startswith("runtime/b.py has 301 lines")


def test_no_imports_form_a_circle() -> None:
    assert not circular(ROOT, FOLDERS)


@pytest.mark.parametrize(
    "back", ["from runtime import a", "import runtime.a", "from . import a", "from .a import x"]
)
def test_a_circle_is_named(tmp_path: Path, back: str) -> None:
    tree(tmp_path, runtime__a="from runtime.b import f", runtime__b=f"def f():\n    {back}")
    assert not circular(tmp_path, ["runtime"]), "in a function, it is imported later"
    tree(tmp_path, runtime__b=f"if TYPE_CHECKING:\n    {back}")
    [offence] = circular(tmp_path, ["runtime"])
    assert "runtime/a.py:1: runtime.a imports runtime.b" in offence
    assert "runtime/b.py:2: runtime.b imports runtime.a" in offence


def test_rooms_import_only_lower_rooms(found: list[Import]) -> None:
    assert not between_rooms(found)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("runtime", "from policies.base import Policy"),
        ("envs", "import deployments.app"),
        ("deployments", "from tests.support import paths"),
        ("runtime", "def f():\n    from examples.zoo import train"),
        ("policies", "from runtime.engines import build_engine"),
        ("policies", "import torch.nn"),
    ],
)
def test_an_import_that_a_room_may_not_have_is_named(tmp_path: Path, room: str, line: str) -> None:
    allowed = "from runtime.types import query\nimport numpy\n"
    tree(tmp_path, **{f"{room}__a": allowed})
    assert not between_rooms(imports(tmp_path, FOLDERS))
    tree(tmp_path, **{f"{room}__a": allowed + line})
    [offence] = between_rooms(imports(tmp_path, FOLDERS))
    assert offence.startswith(f"{room}/a.py:{3 + line.count(chr(10))}: {room}.a imports ")


@pytest.mark.parametrize("package", ORDER)
def test_packages_import_only_what_is_below_them(found: list[Import], package: str) -> None:
    assert not upward(found, package, ORDER[package])


def test_every_part_of_a_room_has_a_row() -> None:
    for package, rows in ORDER.items():
        named = {part for row in rows for part in row.split()}
        folder = ROOT / package.replace(".", "/")
        there = {p.stem for p in folder.glob("*.py")} | {
            p.parent.name for p in folder.glob("*/*.py")
        }
        assert "*" in named or there <= named, f"no row of {package} names {there - named}"
        assert named - {"*"} <= there, f"{package} has no {named - there - {'*'}}"


@pytest.mark.parametrize(
    ("line", "offence"),
    [
        ("from runtime.c import x", "runtime/b/x.py:1: runtime.b.x imports runtime.c"),
        ("def f():\n  import runtime.a", "runtime/b/x.py:2: runtime.b.x imports runtime.a"),
        ("from runtime import new", "runtime/b/x.py: no row of runtime names 'new'"),
    ],
)
def test_an_import_upwards_or_sideways_is_named(tmp_path: Path, line: str, offence: str) -> None:
    tree(tmp_path, runtime__a="import runtime.b", runtime__c="", runtime__d="", runtime__new="")
    tree(tmp_path, runtime__b__x="import runtime.b.y, runtime.d", runtime__b__y="")
    rows = ("a", "b c", "d __init__")
    assert not upward(imports(tmp_path, ["runtime"]), "runtime", rows)
    tree(tmp_path, runtime__b__x=line)
    assert offence in upward(imports(tmp_path, ["runtime"]), "runtime", rows)


def test_a_coordinator_process_loads_neither_torch_nor_transformers() -> None:
    script = (
        "import sys, deployments.wiring, deployments.http.gateway;"
        "import deployments.config.app_config, deployments.config.serve_file;"
        "print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
