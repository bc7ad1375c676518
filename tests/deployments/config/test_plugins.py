"""Methods and engines from packages that are installed next to Orchestrion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from policies import method_fault
from policies.base import Method
from policies.single import Single, SingleConfig
from runtime.config.engine_base import PluginEngine
from runtime.config.engines import EchoEngine, engine_fault
from runtime.config.plugins import OneOf, Plugin, load_plugins, refusal
from runtime.engines import build_engine
from runtime.errors import ConfigError
from tests.support.local_stack import animals
from tests.support.paths import ROOT

PACKAGE = ROOT / "tests" / "support" / "plugin_package"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the test package, built from its sources."""
    folder = tmp_path_factory.mktemp("plugins")
    sources = shutil.copytree(PACKAGE, folder / "sources")
    site = folder / "site"
    command = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", *command, "--target", str(site), str(sources)],
        check=True,
        timeout=120,
    )
    return site


def distribution(site: Path, name: str, group: str, entries: dict[str, str], code: str) -> None:
    """A package as installed: one module and the metadata of its entry points."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(code)
    metadata = site / f"{module}-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


def serve_file(folder: Path, document: dict[str, Any]) -> Path:
    application = {
        "name": "orchestrion",
        "import_path": "deployments.app:build_app",
        "args": document,
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}, sort_keys=False))
    return file


def probe(file: Path, model: str, *sites: Path) -> dict[str, Any]:
    """What a new process with these packages says: see ``tests/support/plugin_probe.py``."""
    path = os.pathsep.join(map(str, [*sites, ROOT]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.plugin_probe", str(file), model],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


def test_an_installed_method_serves_on_an_installed_engine(tmp_path: Path, site: Path) -> None:
    document = {
        "members": {
            "short": {"engine": {"type": "fixed", "answer": "A cat."}},
            "long": {
                "engine": {"type": "slow", "engine": {"type": "fixed", "answer": "A large cat."}}
            },
        },
        "ensembles": {"e": {"type": "longest", "members": ["short", "long"]}},
    }
    document["members"]["long"]["engine"]["seconds"] = 0.0  # type: ignore[index]
    reply = probe(serve_file(tmp_path, document), "e", site)
    assert reply["text"] == "A large cat."
    assert (reply["summary"]["method"], reply["summary"]["level"]) == ("longest", "selection")
    assert "| `longest` | Longest answer (selection) | acme-orchestrion 1.2 |" in reply["methods"]


def test_a_mistake_in_a_plugins_part_is_reported_with_its_line(tmp_path: Path, site: Path) -> None:
    document = {
        "members": {"a": {"engine": {"type": "fixed", "anwser": "A cat."}}},
        "ensembles": {"e": {"type": "longest", "members": ["a"]}},
    }
    reply = probe(serve_file(tmp_path, document), "e", site)
    assert ":9: " in reply["error"] and "did you mean 'answer'" in reply["error"]


def test_a_broken_package_and_a_taken_name_harm_only_those_who_use_them(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    group = "orchestrion.methods"
    entries = {"odd": "odd_package:METHOD", "gac": "odd_package:METHOD"}
    distribution(site, "odd-package", group, entries, "raise RuntimeError('no licence')\n")

    unharmed = animals(e={"type": "single"})
    reply = probe(serve_file(tmp_path, unharmed), "e", site)
    assert reply["text"] == " the cat sat."
    assert "`odd` | cannot be used: odd-package 0.1" in reply["methods"]

    both = animals(broken={"type": "odd"}, taken={"type": "gac"})
    error = probe(serve_file(tmp_path, both), "broken", site)["error"]
    assert (
        "ensembles.broken: odd-package 0.1: orchestrion.methods 'odd' (odd_package:METHOD) cannot "
        "be imported: RuntimeError: no licence; repair or uninstall the package"
    ) in error
    assert (
        "ensembles.taken: odd-package 0.1 registers 'gac' in orchestrion.methods, which is "
        "Orchestrion's own name; rename it there or uninstall the package"
    ) in error


class Fixed(PluginEngine):
    type: Literal["fixed"] = "fixed"


class Unnamed(PluginEngine):
    factory = "nowhere:build"
    type: str = "other"


class Lost(PluginEngine):
    factory = "nowhere:build"
    type: Literal["lost"] = "lost"


class NoNeeds(Single):
    level = "odd"


def test_what_an_entry_point_refers_to_is_checked() -> None:
    assert "not a subclass of" in (engine_fault("echo", EchoEngine) or "")
    assert "not a subclass of" in (engine_fault("echo", "echo") or "")
    assert "has type 'other'" in (engine_fault("fixed", Unnamed) or "")
    assert "no factory" in (engine_fault("fixed", Fixed) or "")
    assert engine_fault("lost", Lost) is None
    assert "not a policies.base.Method" in (method_fault("single", Single) or "")
    assert method_fault("single", Method(Single, SingleConfig)) is None
    assert "of type 'single'" in (method_fault("one", Method(Single, SingleConfig)) or "")
    assert "level 'odd'" in (method_fault("single", Method(NoNeeds, SingleConfig)) or "")


def test_a_factory_that_is_not_there_is_reported_when_the_engine_is_built() -> None:
    with pytest.raises(ConfigError, match="'lost': its factory nowhere:build cannot be imported"):
        build_engine(Lost())


def loaded(
    site: Path, monkeypatch: pytest.MonkeyPatch, taken: Collection[str] = ()
) -> dict[str, Plugin]:
    monkeypatch.syspath_prepend(site)
    plugins = load_plugins("orchestrion.tests", taken, lambda name, value: value)
    return {plugin.name: plugin for plugin in plugins}


def test_a_name_of_two_packages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("package-a", "package-b"):
        entry = {"same": f"{name.replace('-', '_')}:VALUE"}
        distribution(tmp_path, name, "orchestrion.tests", entry, "VALUE = None\n")
    distribution(
        tmp_path, "package-c", "orchestrion.tests", {"c": "package_c:VALUE"}, "VALUE = 0\n"
    )
    found = loaded(tmp_path, monkeypatch)
    assert found["same"].error == (
        "several packages register 'same' in orchestrion.tests: package-a 0.1, package-b 0.1; "
        "uninstall all but one"
    )
    assert found["c"].package == "package-c 0.1"


def test_what_is_not_there_or_is_wrong_is_refused_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {"gone": "package_d:NOTHING", "wrong": "package_d:VALUE", "good": "package_d:GOOD"}
    code = "VALUE = 'is an odd one'\nGOOD = None\n"
    distribution(tmp_path, "package-d", "orchestrion.tests", entries, code)
    found = loaded(tmp_path, monkeypatch)
    assert "AttributeError" in (found["gone"].error or "")
    assert (found["wrong"].error or "").startswith(
        "package-d 0.1: orchestrion.tests 'wrong' (package_d:VALUE) is an odd one"
    )
    assert found["good"].error is None


def test_a_refused_plugin_is_a_branch_that_reports_why() -> None:
    class Shape(BaseModel):
        type: str

    class Square(Shape):
        type: Literal["square"] = "square"

    circle = refusal(Shape, Plugin("circle", "round 1.0", error="round 1.0 is broken"))
    shapes = TypeAdapter(Annotated[Shape, OneOf(lambda: [Square, circle])])
    assert shapes.validate_python({"type": "square"}) == Square()
    with pytest.raises(ValidationError, match="round 1.0 is broken"):
        shapes.validate_python({"type": "circle"})
