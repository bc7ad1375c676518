"""lm-evaluation-harness scores the zoo over HTTP, and finds what the engine itself says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from runtime.tokenization.tokenizer import Tokenizer
from tests.support.http.ensembles import served
from tests.support.paths import ZOO

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(
        find_spec("lm_eval") is None,
        reason="lm-evaluation-harness is not installed: pip install -e '.[lm-eval]'",
    ),
]
ASKED = 6
VALUES = ("dollar", "euro", "yen", "peso")


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    common = {"type": "transformers", "cache_mb": 64, "threads": 1}
    names = ["large", "small"]  # they share a tokenizer
    config = {
        "members": {n: {"engine": {**common, "weights": f"zoo:{n}"}} for n in names},
        "ensembles": {"gac": {"type": "gac", "top_k": "all", "members": names}},
    }
    stack = LocalStack(AppConfig.model_validate(config))
    yield stack
    asyncio.run(stack.close())


@pytest.fixture(scope="module")
def url(stack: LocalStack) -> Iterator[str]:
    with served(stack.api()) as url:
        yield url


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a multiple-choice task in the form of the zoo's conversations, as a user of
    the harness would write it."""
    folder = tmp_path_factory.mktemp("task")
    lines = (ZOO / "questions" / "one_hop.jsonl").read_text().splitlines()
    known = [q for q in map(json.loads, lines) if q["answer"] in VALUES][:ASKED]
    assert len(known) == ASKED
    questions = [
        {
            "text": f"<|bos|><|user|>\n{q['question']}<|end|>\n<|assistant|>\n",
            "choices": [q["steps"][0].replace(q["answer"], value) for value in VALUES],
            "label": VALUES.index(q["answer"]),
        }
        for q in known
    ]
    (folder / "data.jsonl").write_text("\n".join(json.dumps(q) for q in questions))
    task_config = {
        "task": "zoo_currencies",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "zoo_currencies.yaml").write_text(yaml.safe_dump(task_config))
    return folder


@pytest.fixture(scope="module")
def plain_task(task: Path) -> Path:
    """The same without control tokens, which only one of an ensemble's members could read."""
    task_config = yaml.safe_load((task / "zoo_currencies.yaml").read_text())
    questions = [json.loads(line) for line in (task / "data.jsonl").read_text().splitlines()]
    for question in questions:
        first = question["choices"][0]
        question["text"] = first[: first.index(" is the ")] + " is"
        question["choices"] = [f" the {value}" for value in VALUES]
    folder = task / "plain"
    folder.mkdir()
    (folder / "data.jsonl").write_text("\n".join(json.dumps(q) for q in questions))
    task_config["dataset_kwargs"] = {"data_files": {"test": str(folder / "data.jsonl")}}
    (folder / "zoo_currencies.yaml").write_text(yaml.safe_dump(task_config))
    return folder


def evaluated(url: str, task: Path, out: Path, batch: int, **model: Any) -> tuple[float, list[Any]]:
    """Accuracy, and the samples of a run of the harness's own command."""
    options = {
        "model": "large",
        "base_url": f"{url}/v1/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": ZOO / "large",
        "max_length": 512,
        **model,
    }
    command = [sys.executable, "-W", "ignore", "-m", "lm_eval", "run"]
    command += ["--model", "local-completions", "--tasks", "zoo_currencies"]
    command += ["--batch_size", str(batch)]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in options.items())]
    command += ["--include_path", str(task), "--output_path", str(out), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(out / "hf")}
    run = subprocess.run(
        command, env={**os.environ, **offline}, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr[-3000:]
    [results] = out.rglob("results_*.json")
    [samples] = out.rglob("samples_*.jsonl")
    accuracy = json.loads(results.read_text())["results"]["zoo_currencies"]["acc,none"]
    return accuracy, [json.loads(line) for line in samples.read_text().splitlines()]


async def from_engine(stack: LocalStack, context: str, continuation: str) -> tuple[float, bool]:
    """Log-likelihood, and whether greedy decoding would write the continuation. White space that
    ends the context counts to the continuation, as the harness has it."""
    engine = stack.engines["large"]
    tokenizer = Tokenizer(engine.spec.tokenizer)
    bare = context.rstrip()
    before = tokenizer.encode_prompt(bare)
    whole = tokenizer.encode_prompt(context + continuation)
    assert whole[: len(before)] == before
    [score] = await engine.score(before, [whole[len(before) :]], top_k=1)
    assert score.top is not None
    best = [float(top.logprobs[0]) for top in score.top]
    return sum(score.logprobs), list(score.logprobs) == best


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"tokenized_requests": True, "batch": 3},
        {"tokenized_requests": False, "batch": 1, "num_concurrent": 2},
    ],
    ids=str,
)
def test_the_harness_finds_the_engines_own_log_likelihoods(
    stack: LocalStack, url: str, task: Path, tmp_path: Path, model: dict[str, Any]
) -> None:
    accuracy, samples = evaluated(url, task, tmp_path, **model)
    assert accuracy == 1.0, "zoo:large knows all currencies"
    assert len(samples) == ASKED

    async def compare() -> None:
        for sample in samples:
            pairs = [pair.values() for pair in sample["arguments"].values()]
            result = [reply for [reply] in sample["resps"]]
            for (context, continuation), (logprob, greedy) in zip(pairs, result, strict=True):
                own, own_greedy = await from_engine(stack, context, continuation)
                assert float(logprob) == pytest.approx(own, abs=1e-4)
                assert (greedy == "True") == own_greedy

    asyncio.run(compare())


def test_the_harness_scores_an_ensemble_as_the_mean_of_its_members(
    stack: LocalStack, url: str, plain_task: Path, tmp_path: Path
) -> None:
    _, samples = evaluated(url, plain_task, tmp_path, 2, model="gac", tokenized_requests=False)

    async def mean(context: str, continuation: str) -> float:
        result = []
        for name in ("large", "small"):
            engine = stack.engines[name]
            tokenizer = Tokenizer(engine.spec.tokenizer)
            before = tokenizer.encode_prompt(context)
            whole = tokenizer.encode_prompt(context + continuation)
            [score] = await engine.score(before, [whole[len(before) :]])
            result.append(np.exp(score.logprobs))
        return float(np.log(np.mean(result, axis=0)).sum())

    async def compare() -> None:
        for sample in samples:
            pairs = [pair.values() for pair in sample["arguments"].values()]
            for (context, continuation), (given, _) in zip(
                pairs, sample["filtered_resps"], strict=True
            ):
                assert float(given) == pytest.approx(await mean(context, continuation), abs=1e-3)

    assert len(samples) == ASKED
    asyncio.run(compare())
