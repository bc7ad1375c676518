"""``orchestrion train citer`` on table models behind Ray Serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from deployments.config.serve_file import IMPORT_PATH
from deployments.training.citer_setup import load_pair_setup
from runtime.artifacts.token_router import load_router
from runtime.errors import ConfigError
from tests.support.models.deferral_pair import LARGE, SMALL
from tests.support.training_files import orchestrion


def files(folder: Path, **training: Any) -> Path:
    members = {
        name: {"engine": engine, "replica": {"num_cpus": 0.1}}
        for name, engine in (("small", SMALL), ("large", LARGE))
    }
    citer = {"type": "citer", "members": ["small", "large"], "router": str(folder / "router")}
    args = {"members": members, "ensembles": {"citer": citer, "one": {"type": "single"}}}
    args["ensembles"]["one"]["members"] = ["small"]
    serve = {"applications": [{"name": "o", "import_path": IMPORT_PATH, "args": args}]}
    (folder / "serve.yaml").write_text(yaml.safe_dump(serve))
    rows = [
        {"question": f"q{n}", "answer": " the dog ran.", "reference": " the dog ran."}
        for n in range(12)
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {
        "serve": str(folder / "serve.yaml"),
        "ensemble": "citer",
        "questions": str(folder / "q.jsonl"),
        "max_tokens": 8,
        "run": str(folder / "run"),
        "collectors": 1,
        "preference": {"batch": 16, "epochs": 2},
        "first": str(folder / "first"),
        "tuned": str(folder / "tuned"),
        "co_llm": str(folder / "co_llm"),
        "ppo": {
            "iterations": 2,
            "batch": 64,
            "minibatch": 32,
            "environments": 4,
            "epochs": 2,
            "hidden": [16],
        },
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(settings | training))
    return path


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_collects_trains_tunes_and_goes_on(tmp_path: Path) -> None:
    path = files(tmp_path)
    result = orchestrion("train", "citer", str(path))
    assert "round 2" in result.stderr and "Co-LLM" in result.stderr
    first, last, tuned = (load_router(tmp_path / n) for n in ("first", "router", "tuned"))
    assert {first.reads, last.reads, tuned.reads} == {"table"} and first.size == 32
    assert (first.about["round"], last.about["round"], tuned.about["iterations"]) == (1, 2, 2)
    assert load_router(tmp_path / "co_llm").method == "co-llm"
    kept = pq.read_table(tmp_path / "run" / "preferences_2.parquet")
    about = json.loads(kept.schema.metadata[b"orchestrion"])
    assert about["router"] == first.version and about["members"]["small"]["type"] == "table"
    again = orchestrion("train", "citer", str(path))
    assert "collecting" not in again.stderr and "tuning goes on after iteration 2" in again.stderr
    assert load_router(tmp_path / "router").version == last.version


def test_a_wrong_setup_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ensemble 'one' of type citer; it has citer"):
        load_pair_setup(files(tmp_path, ensemble="one"))
    with pytest.raises(ConfigError, match="rounds"):
        load_pair_setup(files(tmp_path, rounds=0))
