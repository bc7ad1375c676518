"""One ensemble of every family on table models with small windows, for requests of any kind."""

from __future__ import annotations

from typing import Any

from tests.support.local_stack import CAT, DOG
from tests.support.models.maze import JUDGE

WINDOW = 160
SHORT: dict[str, Any] = {"members": ["cat", "dog"], "max_tokens": 24}
SEARCH: dict[str, Any] = SHORT | {"reward": "prm"}
KITTEN = CAT | {"table": {}}
"""The cat's words in any order."""
FAMILIES: dict[str, dict[str, Any]] = {
    "single": SHORT | {"type": "single", "chunk_tokens": 4},
    "sweetspan": SHORT | {"type": "sweetspan", "span_words": 1},
    "specfuse": SHORT | {"type": "specfuse", "segment_tokens": 2},
    "cool-fusion": SHORT | {"type": "cool-fusion"},
    "gac": SHORT | {"type": "gac"},
    "packllm": SHORT | {"type": "packllm"},
    "uncertainty": SHORT
    | {"type": "uncertainty", "members": ["kitten", "cat"], "by": "entropy", "threshold": 0.5},
    "le-mcts": SEARCH | {"type": "le-mcts", "n_iter": 4, "step_tokens": 8},
    "best-of-n": SEARCH | {"type": "best-of-n", "members": ["cat"], "n": 2, "step_tokens": 8},
    "ebs": SEARCH | {"type": "ebs", "step_tokens": 8},
    "fixed-route": SHORT | {"type": "fixed-route"},
    "random-route": SHORT | {"type": "random-route", "t_max": 2},
}


def families() -> dict[str, Any]:
    """The configuration; the members are models too."""
    members = {"cat": CAT, "dog": DOG, "kitten": KITTEN}
    return {
        "members": {
            name: {"engine": engine | {"context_length": WINDOW}}
            for name, engine in members.items()
        },
        "reward_models": {"prm": JUDGE},
        "ensembles": FAMILIES,
        "gateway": {"max_n": 3, "max_body_bytes": 2**20, "keep_alive_s": 30},
    }


MODELS = (*FAMILIES, "cat", "dog", "kitten")
