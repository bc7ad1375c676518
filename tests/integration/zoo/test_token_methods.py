"""Token methods on the trained zoo: what they write, and that drafting does not change it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.in_process import LocalStack
from runtime.data.grading import answers_match, extract_answer
from runtime.data.questions import read_questions
from runtime.types.query import Message
from tests.support.local_stack import Answer, ask
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.timeout(3600 if "ORCHESTRION_LONG_TESTS" in os.environ else 900),
]
DRAFTED = ("gac", "unite", "deepen", "eva", "packllm")
SAMPLED: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}


@pytest.fixture(scope="module")
def config() -> AppConfig:
    """The example, and each drafted method as the plain loop too."""
    document = load(ROOT / "examples" / "zoo_tokens.yaml")[1].model_dump(mode="json")
    ensembles = document["ensembles"]
    ensembles |= {f"{name}-plain": {**ensembles[name], "draft": 0} for name in DRAFTED}
    return AppConfig.model_validate(document)


def written(
    config: AppConfig, models: list[str], count: int, **sampling: Any
) -> tuple[dict[str, list[Answer]], dict[str, float]]:
    """Answers of each model to the same questions, and the share of right ones."""
    assert config.evaluation is not None
    evaluation = config.evaluation
    questions = read_questions(ROOT / evaluation.questions, count)

    async def run() -> dict[str, list[Answer]]:
        stack = LocalStack(config)
        gate = asyncio.Semaphore(24)

        async def one(model: str, number: int) -> Answer:
            async with gate:
                request = (Message("user", questions[number].question),)
                return await ask(
                    stack, model, messages=request, max_tokens=64, seed=number, **sampling
                )

        try:
            return {
                model: list(await asyncio.gather(*(one(model, i) for i in range(count))))
                for model in models
            }
        finally:
            await stack.close()

    answers = asyncio.run(run())
    right = {
        model: sum(
            answers_match(extract_answer(reply.text, evaluation.answer_pattern), question.answer)
            for reply, question in zip(replies, questions, strict=True)
        )
        / count
        for model, replies in answers.items()
    }
    return answers, right


def same(answers: dict[str, list[Answer]], method: str) -> None:
    drafted = [reply.text for reply in answers[method]]
    plain = [reply.text for reply in answers[f"{method}-plain"]]
    assert drafted == plain
    for a, b in zip(answers[method], answers[f"{method}-plain"], strict=True):
        assert a.end.stop_reason == b.end.stop_reason


def test_specialists_fused_token_by_token_answer_two_hops(config: AppConfig) -> None:
    models = ["gac", "gac-safe", "unite", "deepen", *config.members]
    answers, right = written(config, models, 30)
    alone = max(right[name] for name in config.members)
    assert alone <= 0.5, right
    for name in ("gac", "gac-safe", "unite", "deepen"):
        assert right[name] >= 0.85, right
    fewest = min(_calls(answers[name]) for name in ("gac", "unite"))
    assert _calls(answers["gac-safe"]) <= 2 * fewest


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_few_questions_are_answered_alike_by_both_loops(
    config: AppConfig, sampling: dict[str, Any]
) -> None:
    models = [name for method in ("gac", "unite") for name in (method, f"{method}-plain")]
    answers, _ = written(config, models, 8, **sampling)
    for method in ("gac", "unite"):
        same(answers, method)
        assert _calls(answers[method]) < 0.5 * _calls(answers[f"{method}-plain"])


MANY = {"gac": (100, 100), "unite": (50, 20), "deepen": (50, 10), "packllm": (50, 10)}
"""Questions to be answered greedily, and drawn; EVA fuses slowest. With ORCHESTRION_LONG_TESTS=1 it
is a hundred each, for every method."""


@pytest.mark.slow
@pytest.mark.parametrize("method", DRAFTED)
def test_many_questions_are_answered_alike_by_both_loops(config: AppConfig, method: str) -> None:
    long = "ORCHESTRION_LONG_TESTS" in os.environ
    greedy, drawn = (100, 100) if long else MANY.get(method, (20, 10))
    for count, sampling in ((greedy, {}), (drawn, SAMPLED)):
        answers, _ = written(config, [method, f"{method}-plain"], count, **sampling)
        same(answers, method)


def _calls(replies: list[Answer]) -> int:
    return sum(reply.summary["usage"]["model_calls"] for reply in replies)
