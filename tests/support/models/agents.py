"""Agents made by hand for members that echo their question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policies.cascade.sequential.agent import Agent
from runtime.artifacts.mlp import Layers
from runtime.engines.scripted.base import HIDDEN as WIDTH

T_MAX = 5
ECHO = {"engine": {"type": "echo"}}
PROMPT = "{question} / {previous}"


def by_calls(*wanted: int, t_max: int = T_MAX) -> Layers:
    """Wants action ``wanted[n]`` after n calls, whatever the texts say; the last one also later."""
    count = len(wanted)
    # Steps: hidden unit n is 1 from n calls on and -1 before.
    steps = np.zeros((count, WIDTH + 1), dtype=np.float32)
    steps[:, -1] = 20 * t_max
    borders = -20 * (np.arange(count, dtype=np.float32) - 0.5)
    rows = np.zeros((max((*wanted, 2)) + 1, count), dtype=np.float32)
    for place, action in enumerate(wanted):
        rows[action, place] += 0.5
        if place + 1 < count:
            rows[action, place + 1] -= 0.5
    return (steps, borders), (rows, np.zeros(len(rows), dtype=np.float32))


def agent(layers: Layers, members: Sequence[str] = ("a", "b"), **fields: Any) -> Agent:
    defaults: dict[str, Any] = {
        "t_max": T_MAX,
        "encoder": "a",
        "prompts": dict.fromkeys(members, PROMPT),
    }
    return Agent(tuple(members), layers, **(defaults | fields))


def config(folder: Path, **ensembles: dict[str, Any]) -> dict[str, Any]:
    """Members "a" and "b" that echo, and ensembles of both."""
    shared = {"type": "der", "members": ["a", "b"], "transfer": PROMPT}
    own = {"agent": str(folder), "encoder": "a"}
    return {
        "members": {"a": ECHO, "b": ECHO},
        "ensembles": {
            name: {**shared, **(own if fields.get("type", "der") == "der" else {}), **fields}
            for name, fields in ensembles.items()
        },
    }
