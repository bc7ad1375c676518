"""What the storm hits: one ensemble of each family, whose text no loss of a member can change.

All members count, so whoever is left writes the same: every character that a client gets too few or
too many shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deployments.config.app_config import AppConfig
from tests.support.models.agents import agent, by_calls

LINES, WIDTH = 20, 5
ROWS = [[f" {WIDTH * row + column}" for column in range(1, WIDTH + 1)] for row in range(LINES)]
NUMBERS = "\n".join("".join(row) for row in ROWS)
FAMILIES = ("span", "token", "process", "cascade", "alone")
STEP_S = 0.03
"""What a member's call takes at least."""


def _table() -> dict[str, Any]:
    order = [word for row in ROWS for word in (*row, "\n")][:-1]
    table: dict[str, dict[str, float]] = {"": {order[0]: 1}}
    for before, word, after in zip(["", *order], order, [*order[1:], "<eos>"], strict=False):
        table[before + word if word == "\n" else word] = {after: 1}
    return {"type": "table", "vocabulary": sorted(set(order)), "table": table, "floor": 1e-6}


COUNTING = {"type": "slow", "engine": _table(), "seconds": STEP_S}
JUDGE = {
    "judge": {
        "type": "step-tags",
        "engine": {
            "type": "table",
            "vocabulary": ["#", "+", "-", " #"],
            "table": {"#": {"+": 3, "-": 1}},
        },
        "tag": "#",
    }
}


def config(folder: Path, replicas: int = 2) -> AppConfig:
    """Two members with ``replicas`` processes each. ``folder`` gets the agent of the cascade."""
    agent(by_calls(0, 1, t_max=2), ("one", "two"), encoder="one", t_max=2).save(folder)
    replica = {"num_cpus": 0.01, "num_replicas": replicas}
    member = {"engine": COUNTING, "timeout_s": 60.0, "retries": 3, "replica": replica}
    # A stop of one member: what may be its beginning is held back wherever that member may write.
    one = member | {"stop": ["\nUser:"]}
    both = {"members": ["one", "two"]}
    ensembles: dict[str, dict[str, Any]] = {
        "span": {"type": "sweetspan", "span_words": 2},
        "token": {"type": "gac"},
        "process": {"type": "le-mcts", "reward": "prm", "n_iter": 40, "max_steps": 32},
        "cascade": {
            "type": "der",
            "agent": str(folder),
            "encoder": "one",
            "transfer": "{question} / {previous}",
            "chunk_tokens": 4,
        },
        "alone": {"type": "single", "chunk_tokens": 1},
    }
    judge = JUDGE | {"replica": {"num_cpus": 0.01}, "timeout_s": 60.0, "retries": 3}
    document = {
        "members": {"one": one, "two": member},
        "reward_models": {"prm": judge},
        "ensembles": {name: both | fields for name, fields in ensembles.items()},
    }
    return AppConfig.model_validate(document)
