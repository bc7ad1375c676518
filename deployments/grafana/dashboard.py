"""Writes ``orchestrion.json`` from ``panels.py``: ``python -m deployments.grafana.dashboard``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from deployments.grafana.panels import ROWS
from deployments.grafana.queries import Panel, Row

FILE: Final = Path(__file__).with_name("orchestrion.json")
SCHEMA_VERSION: Final = 39
"""The schema of Grafana 11; later versions migrate it on import."""
COLUMNS: Final = 24
WIDTH, HEIGHT = 8, 8
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    return {
        "title": "Orchestrion",
        "uid": "orchestrion",
        "description": "Ensembles, their members, and what they run on. See docs/metrics.md.",
        "tags": ["orchestrion", "ray"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                _source(),
                _variable("ensemble", "ray_orchestrion_answers_total"),
                _variable("member", "ray_orchestrion_member_calls_total"),
            ]
        },
        "panels": list(_positioned()),
    }


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
    }


def _variable(label: str, metric: str) -> dict[str, Any]:
    """A variable that selects ensembles or members; by default all."""
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _positioned() -> Iterator[dict[str, Any]]:
    """Rows with their panels, placed on the grid from top to bottom."""
    y, number = 0, 0
    for row in ROWS:
        number += 1
        yield _heading(row, number, y)
        y += 1
        for position, panel in enumerate(row.panels):
            number += 1
            line, column = divmod(position * WIDTH, COLUMNS)
            yield _panel(panel, number, {"x": column, "y": y + line * HEIGHT, **_SIZE})
        y += -(-len(row.panels) * WIDTH // COLUMNS) * HEIGHT


_SIZE: Final = {"w": WIDTH, "h": HEIGHT}


def _heading(row: Row, number: int, y: int) -> dict[str, Any]:
    position = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
    shape = {"type": "row", "collapsed": False, "panels": []}
    return {"id": number, "title": row.title, "gridPos": position, **shape}


def _panel(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    custom = {
        "drawStyle": "line",
        "fillOpacity": 30 if panel.stacked else 0,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "showPoints": "never",
    }
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "gridPos": position,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": custom},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": SOURCE,
                "expr": line.expr,
                "legendFormat": line.legend,
                "range": True,
            }
            for at, line in enumerate(panel.lines)
        ],
    }


def to_json() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(to_json())
