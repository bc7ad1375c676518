"""A small and a large table model that share a vocabulary, and ensembles that hand tokens over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.artifacts.token_router import Router
from runtime.types.query import Message

VOCABULARY = [" the", " cat", " dog", " sat", " ran", ".", " and"]


SMALL = {
    "type": "table",
    "vocabulary": VOCABULARY,
    "table": {
        "": {" the": 1},
        " the": {" cat": 51, " dog": 49},  # unsure
        " cat": {" sat": 9, " ran": 1},
        " dog": {" sat": 1, " ran": 1},  # unsure
        " sat": {".": 6, " and": 4},
        " ran": {".": 4, " and": 6},
        " and": {" the": 1},
        ".": {"<eos>": 1},
    },
}


LARGE = {
    "type": "table",
    "vocabulary": VOCABULARY,
    "table": {
        "": {" the": 1},
        " the": {" dog": 1},
        " dog": {" ran": 1},
        " dog ran and the": {" cat": 1},
        " cat": {" sat": 1},
        " sat": {".": 1},
        " ran": {".": 1},
        ".": {"<eos>": 1},
    },
}


NAMES = ["small", "large"]


def config(**ensembles: dict[str, Any]) -> dict[str, Any]:
    named = {name: {"members": NAMES, **fields} for name, fields in ensembles.items()}
    return {
        "members": {"small": {"engine": SMALL}, "large": {"engine": LARGE}},
        "ensembles": named,
    }


def by(signal: str, threshold: float, **more: Any) -> dict[str, Any]:
    return {"type": "uncertainty", "by": signal, "threshold": threshold, **more}


def zoo(name: str) -> dict[str, Any]:
    engine = {"type": "transformers", "weights": f"zoo:{name}", "dtype": "float32", "threads": 1}
    return {"engine": engine}


def router(folder: Path, reads: str = "zoo:small", width: int = 64, seed: int = 0) -> str:
    draws = np.random.default_rng(seed)
    layers = (
        (draws.normal(0, 0.2, (16, width)).astype(np.float32), np.zeros(16, np.float32)),
        (draws.normal(0, 1.0, (1, 16)).astype(np.float32), np.zeros(1, np.float32)),
    )
    Router(layers, reads, "citer").save(folder)
    return str(folder)


QUESTION = (Message("user", "Name the language of the largest neighbour of Chad."),)
