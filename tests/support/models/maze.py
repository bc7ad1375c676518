"""A world in which no member finds the way alone, on table models: up, then left, is gold."""

from __future__ import annotations

from typing import Any

GOLD = "up\nleft\nAnswer: gold"
LINES = ("up", "down", "left", "right", "Answer:", " gold", " mud", "\n", "#", "+", "-", " #")
ENDS = {
    "left\n": {"Answer:": 1},
    "right\n": {"Answer:": 1},
    "up\nleft\nAnswer:": {" gold": 1},
    "Answer:": {" mud": 1},
    " gold": {"<eos>": 1},
    " mud": {"<eos>": 1},
    "up": {"\n": 1},
    "down": {"\n": 1},
    "left": {"\n": 1},
    "right": {"\n": 1},
}
STARTS_WELL = {"": {"up": 3, "down": 1}, "up\n": {"right": 3, "left": 1}, "down\n": {"right": 1}}
ENDS_WELL = {"": {"down": 3, "up": 1}, "up\n": {"left": 3, "right": 1}, "down\n": {"left": 1}}
VALUES = {"up": 0.7, "down": 0.3, "left": 0.8, "right": 0.2, "gold": 0.95, "mud": 0.05}


def table(rows: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {"type": "table", "vocabulary": LINES, "table": {**ENDS, **rows}, "floor": 1e-4}


JUDGE = {
    "judge": {
        "type": "step-tags",
        "engine": {
            "type": "table",
            "vocabulary": LINES,
            "table": {f"{word} #": {"+": value, "-": 1 - value} for word, value in VALUES.items()},
            "floor": 1e-9,
        },
        "tag": "#",
    }
}


def maze(**ensembles: dict[str, Any]) -> dict[str, Any]:
    """Members "a" and "b", the judge "prm", and ensembles of both members with that judge."""
    return {
        "members": {
            "a": {"engine": table(STARTS_WELL)},
            "b": {"engine": table(ENDS_WELL)},
        },
        "reward_models": {"prm": JUDGE},
        "ensembles": {
            name: {"type": "le-mcts", "members": ["a", "b"], "reward": "prm", **fields}
            for name, fields in ensembles.items()
        },
    }
