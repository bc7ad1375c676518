"""The trained zoo does together what none of it does alone, in one process on real checkpoints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from safetensors import safe_open

from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.in_process import LocalStack
from runtime.data.grading import answers_match, extract_answer
from runtime.data.questions import read_questions
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.query import Message
from tests.support.local_stack import ask
from tests.support.paths import ROOT, ZOO

pytestmark = [pytest.mark.zoo, pytest.mark.timeout(600)]
FOLDERS = sorted(path.parent for path in ZOO.glob("*/config.json"))
ASKED = 30


@pytest.fixture(scope="module")
def config() -> AppConfig:
    return load(ROOT / "examples" / "zoo_two_hop.yaml")[1]


def accuracy(config: AppConfig, models: list[str]) -> dict[str, float]:
    assert config.evaluation is not None
    evaluation = config.evaluation
    questions = read_questions(ROOT / evaluation.questions, ASKED)

    async def right(stack: LocalStack, model: str) -> float:
        replies = await asyncio.gather(
            *(
                ask(stack, model, messages=(Message("user", q.question),), max_tokens=64, seed=1)
                for q in questions
            )
        )
        return sum(
            answers_match(extract_answer(reply.text, evaluation.answer_pattern), question.answer)
            for reply, question in zip(replies, questions, strict=True)
        ) / len(questions)

    async def run() -> dict[str, float]:
        stack = LocalStack(config)
        try:
            return {model: await right(stack, model) for model in models}
        finally:
            await stack.close()

    return asyncio.run(run())


def test_specialists_answer_two_hops_together_and_not_alone(config: AppConfig) -> None:
    scores = accuracy(config, [*config.ensembles, *config.members])
    best_alone = max(scores[name] for name in config.members)
    assert best_alone <= 0.5, scores
    for ensemble in config.ensembles:
        assert scores[ensemble] >= best_alone + 0.25, scores
        assert scores[ensemble] >= 0.75, scores


def test_the_zoo_is_small_and_differs_in_architecture_and_tokenizer() -> None:
    files = [path for folder in FOLDERS for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) < 27 * 2**20
    kinds = {json.loads((f / "config.json").read_text())["architectures"][0] for f in FOLDERS}
    assert len(kinds) >= 3
    prints = {f.name: Tokenizer.from_folder(f).definition.fingerprint for f in FOLDERS}
    assert prints["small"] == prints["novice"] == prints["large"]
    general = {"small", "novice", "large", "prm", "prm_pairs", "prm_steps"}
    specialists = [name for name in prints if name not in general]
    assert len({prints[name] for name in specialists}) == len(specialists) >= 4


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_model_reports_how_it_was_trained(folder: Path) -> None:
    log = json.loads((folder / "train_log.json").read_text())
    assert "seed" in log
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        assert list(tensors.keys())


def test_held_out_questions_were_in_no_training_text() -> None:
    held, seen = (
        {
            json.loads(line)["question"]
            for name in names
            for line in (ZOO / "questions" / f"{name}.jsonl").read_text().splitlines()
        }
        for names in (("two_hop", "two_hop_long"), ("two_hop_train",))
    )
    assert held
    assert not held & seen
