"""A training's files on table models, and the command that trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from deployments.config.serve_file import IMPORT_PATH
from tests.support.models.agents import PROMPT

OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""A cluster on loopback without tokens, which a job's own environment would bring."""


QUESTIONS = [{"question": f"q{n}", "answer": f"q{n} / q{n}"} for n in range(4)]


def files(folder: Path, **training: Any) -> Path:
    """A Serve config, questions and a training's file, all in ``folder``."""
    members = {
        name: {
            "engine": {"type": "echo"},
            "price": {"input": price, "output": price},
            "replica": {"num_cpus": 0.1},
        }
        for name, price in (("a", 1.0), ("b", 2.0))
    }
    der = {
        "type": "der",
        "members": ["a", "b"],
        "transfer": PROMPT,
        "agent": str(folder / "agent"),
        "encoder": "a",
    }
    args = {"members": members, "ensembles": {"der": der}}
    serve = {"applications": [{"name": "o", "import_path": IMPORT_PATH, "args": args}]}
    (folder / "serve.yaml").write_text(yaml.safe_dump(serve))
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    settings: dict[str, Any] = {
        "serve": str(folder / "serve.yaml"),
        "ensemble": "der",
        "questions": str(folder / "q.jsonl"),
        "run": str(folder / "run"),
        "reward": {"alpha": 1000.0, "t_max": 3},
        "ppo": {
            "iterations": 3,
            "batch": 64,
            "minibatch": 32,
            "environments": 4,
            "epochs": 2,
            "hidden": [16],
        },
        "terminator": True,
        "one_shot": str(folder / "one_shot"),
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(settings | training))
    return path


def orchestrion(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if name not in OPEN}
    result = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *words],
        capture_output=True,
        text=True,
        timeout=280,
        env={**bare, "COLUMNS": "200", **environment},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result
