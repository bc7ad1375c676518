"""The Grafana dashboard: its form, and that all it asks for is exported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import promql_parser
import pytest

from deployments.grafana.dashboard import FILE, to_json
from runtime.observability.metrics import METRICS
from tests.support.observability.prometheus import SERVE
from tests.support.paths import ROOT

PAGE = ROOT / "docs/metrics.md"
BOARD = json.loads(FILE.read_text())
PANELS = BOARD["panels"]
EXPRESSIONS = [
    (panel["title"], target["expr"]) for panel in PANELS for target in panel.get("targets", [])
]
RAYS = {"application", "deployment", "replica"}
"""Labels that Ray and Serve add to ours."""
OVERLOAD = {
    "orchestrion_refused_total": {"ensemble", "reason"},
    "orchestrion_resumed_total": {"ensemble", "cause"},
    "orchestrion_requests_in_progress": set(),
    "orchestrion_cancelled_calls_total": {"ensemble", "member"},
}
"""Told by the gateway and by members."""


def exported() -> dict[str, set[str]]:
    """Names as Prometheus knows them, with their labels."""
    known = {name: set(labels) for name, labels in SERVE.items()}
    ours = {metric.name: (metric.kind, set(metric.tags)) for metric in METRICS}
    ours |= {name: ("counter", labels) for name, labels in OVERLOAD.items() if name not in ours}
    for name, (kind, tags) in ours.items():
        labels = tags | RAYS
        if kind == "histogram":
            known |= {f"ray_{name}_{part}": labels for part in ("sum", "count")}
            known[f"ray_{name}_bucket"] = labels | {"le"}
        else:
            known[f"ray_{name}"] = labels
    for name, kind in re.findall(r"^\| `(ray_vllm_\w+)` \| (\w+)", PAGE.read_text(), re.M):
        known[f"{name}_bucket" if kind == "histogram" else name] = {"model_name", "le"}
    return known


def parsed(expression: str) -> Any:
    """With values in the place of Grafana's variables."""
    return promql_parser.parse(expression.replace("$__rate_interval", "1m"))


def request(node: Any) -> Iterator[tuple[str, set[str]]]:
    """The metrics of an expression, and the labels that it speaks of around each."""
    match type(node).__name__:
        case "VectorSelector":
            yield node.name, {matcher.name for matcher in node.matchers.matchers}
        case "MatrixSelector":
            yield from request(node.vector_selector)
        case "Call":
            for argument in node.args:
                yield from request(argument)
        case "AggregateExpr":
            by = set(node.modifier.labels) if node.modifier is not None else set()
            for name, labels in request(node.expr):
                yield name, labels | by
        case "BinaryExpr":
            yield from request(node.lhs)
            yield from request(node.rhs)
        case "ParenExpr":
            yield from request(node.expr)
        case "NumberLiteral":
            return
        case other:
            raise AssertionError(f"the test does not know {other}")


def test_the_file_is_what_its_script_writes() -> None:
    assert FILE.read_text() == to_json(), "run: python -m deployments.grafana.dashboard"


def test_it_has_what_grafana_wants_of_a_dashboard() -> None:
    assert BOARD["title"] and re.fullmatch(r"[\w-]{1,40}", BOARD["uid"])
    assert isinstance(BOARD["schemaVersion"], int) and "id" not in BOARD
    source, *queries = BOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    own = {"type": "prometheus", "uid": "${datasource}"}
    assert [query["name"] for query in queries] == ["ensemble", "member"]
    for asking in (*queries, *(panel for panel in PANELS if panel["type"] != "row")):
        assert asking["datasource"] == own
    for panel in PANELS:
        assert panel["title"] and {"x", "y", "w", "h"} == set(panel["gridPos"])
        targets = panel.get("targets", [])
        assert bool(targets) == (panel["type"] == "timeseries") != (panel["type"] == "row")
        assert len({target["refId"] for target in targets}) == len(targets)
        assert all(target["expr"] and target["legendFormat"] for target in targets)


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    assert all(0 <= at["x"] and at["x"] + at["w"] <= 24 and at["h"] > 0 for at in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_expression_asks_for_what_is_exported(title: str, expression: str) -> None:
    known = exported()
    for name, labels in request(parsed(expression)):
        assert name in known, f"{title} asks for {name}"
        assert labels <= known[name], f"{title} asks {name} for {labels - known[name]}"


def test_variables_are_labels_of_metrics() -> None:
    for variable in BOARD["templating"]["list"][1:]:
        [(metric, label)] = re.findall(r"^label_values\((\w+), (\w+)\)$", variable["definition"])
        assert label == variable["name"] and label in exported()[metric]


def test_every_metric_of_ours_is_shown() -> None:
    """Those that only say how many a rate is made of are not."""
    shown = {name for _, expression in EXPRESSIONS for name, _ in request(parsed(expression))}
    for metric in METRICS:
        name = f"ray_{metric.name}" + ("_bucket" if metric.kind == "histogram" else "")
        assert name in shown, f"no panel shows {name}"
