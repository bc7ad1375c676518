"""Searches on the trained zoo: specialists and the zoo's own reward model."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.in_process import LocalStack
from examples.zoo import facts, labels, reward
from examples.zoo.splits import parts_named
from policies.process.tree import Tree
from runtime.data.grading import answers_match, extract_answer
from runtime.data.questions import read_questions
from runtime.engines.transformers.scheduler import Scheduler
from runtime.types.query import Message
from tests.support.local_stack import ask
from tests.support.paths import ROOT

pytestmark = [pytest.mark.zoo, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def config() -> AppConfig:
    return load(ROOT / "examples" / "zoo_three_hop.yaml")[1]


def accuracy(config: AppConfig, models: list[str], count: int) -> dict[str, float]:
    assert config.evaluation is not None
    evaluation = config.evaluation
    questions = read_questions(ROOT / evaluation.questions, count)

    async def run() -> dict[str, float]:
        stack, right = LocalStack(config), {}
        gate = asyncio.Semaphore(24)

        async def one(model: str, number: int) -> bool:
            async with gate:
                messages = (Message("user", questions[number].question),)
                reply = await ask(stack, model, messages=messages, max_tokens=80, seed=number)
            given = extract_answer(reply.text, evaluation.answer_pattern)
            return answers_match(given, questions[number].answer)

        try:
            for model in models:
                found = await asyncio.gather(*(one(model, i) for i in range(count)))
                right[model] = sum(found) / count
        finally:
            await stack.close()
        return right

    return asyncio.run(run())


def test_a_search_answers_three_hops_that_nobody_answers_alone(config: AppConfig) -> None:
    right = accuracy(config, ["le-mcts-50", *config.members], 16)
    assert max(right[name] for name in config.members) <= 0.15, right
    assert right["le-mcts-50"] >= 0.3, right


def test_guessed_steps_save_passes_and_change_no_tree(
    config: AppConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.evaluation is not None
    questions = read_questions(ROOT / config.evaluation.questions, 3)
    passes = 0

    async def trees() -> list[Any]:
        nonlocal passes
        stack = LocalStack(config)
        step, passes = Scheduler._pass, 0

        def counted(loop: Scheduler, work: Any) -> None:
            nonlocal passes
            passes += 1
            step(loop, work)

        with monkeypatch.context() as patched:
            patched.setattr(Scheduler, "_pass", counted)
            try:
                found = []
                for question in questions:
                    messages = (Message("user", question.question),)
                    fields = {"messages": messages, "max_tokens": 80, "trace": "full"}
                    reply = await ask(stack, "le-mcts-25", **fields)
                    found.append(reply.summary["full"]["state"]["tree"])
                return found
            finally:
                await stack.close()

    def shape(tree: Any) -> list[tuple[Any, ...]]:
        return [(one["text"], one["authors"], one["parent"], one["visits"]) for one in tree]

    def rewards(trees: list[Any]) -> list[float]:
        return [one["reward"] for tree in trees for one in tree]

    guessed, fewer = asyncio.run(trees()), passes
    monkeypatch.setattr(Tree, "likely", lambda tree, node: "")
    written = asyncio.run(trees())
    assert [shape(tree) for tree in guessed] == [shape(tree) for tree in written]
    assert rewards(guessed) == pytest.approx(rewards(written), abs=1e-3)
    assert fewer < 0.75 * passes


@pytest.mark.slow
def test_more_iterations_do_not_search_worse(config: AppConfig) -> None:
    right = accuracy(config, ["le-mcts-10", "le-mcts-50"], 24)
    assert right["le-mcts-10"] <= right["le-mcts-50"], right
    assert right["le-mcts-50"] >= 0.3, right


@pytest.mark.parametrize("name", ["prm", "prm_pairs", "prm_steps"])
def test_the_log_of_a_reward_model_reports_its_accuracy_on_other_countries(name: str) -> None:
    log: dict[str, Any] = json.loads((ROOT / "examples/zoo" / name / reward.LOG).read_text())
    for file in labels.HELD_OUT:
        assert log[f"auc_{file}"] >= 0.75, file
        assert log[f"steps_{file}"] > 300


def test_a_judge_keeps_to_the_facts_of_good_steps() -> None:
    """Those after a bad one follow from it."""
    question, tag = [5, 6], 9
    ids = [*question, 1, 2, tag, 3, tag, 4, tag]
    good, none, tags = [True, True, False], [False, False], [False]
    assert reward.of_good_steps(ids, 2, tag, [1, 0, 1]) == [*none, *good, *none, *none]
    assert reward.of_good_steps(ids, 2, tag, [0, 1, 1]) == [False] * len(ids)
    assert reward.of_good_steps(ids, 2, tag, [0.5, 0.2, 1]) == [
        *none, *good, True, *tags, True, *tags
    ]  # fmt: skip


def test_what_a_judge_reads() -> None:
    steps = ["a # b", "c", "d"]
    assert reward.text_of("Q?", steps) == "Q?\na  b #\nc #\nd #"
    assert reward.text_of("Q?", steps, 2) == "c #\nd #"
    assert reward.text_of("Q?", steps[:1], 2) == "a  b #"


@pytest.mark.parametrize("last", [None, 1, 2])
def test_a_judge_learns_the_steps_that_it_reads(last: int | None) -> None:
    chains = [("The city of Paris is the capital of France", 1.0), ("Nonsense", 0.0)]
    rows: list[labels.Row] = [
        {"question": "Q?", "steps": (step, tail), "shares": (share, share), "greedy": greedy}
        for step, share in chains
        for tail in ("The currency of France is the euro", "Answer: euro")
        for greedy in (True, False)
    ]
    folder = facts.HERE / reward.BASE
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fixed = {"soft": False, "by_questions": True, "language": 0.5, "rng": random.Random(0)}
    curve = reward.train(model, tokenizer, [rows], 40, last=last, **fixed)
    assert curve[-1][0] == 40
    result = reward.values(model, tokenizer, rows, last)
    good = [row["shares"][-1] > 0 for row in rows]
    if last == 1:  # all that it reads is alike in right and in wrong chains
        assert result[: len(result) // 2] == pytest.approx(result[len(result) // 2 :])
    else:
        assert reward.auc(result, good) == 1.0


def test_auc_by_hand() -> None:
    assert reward.auc([0.9, 0.8, 0.3, 0.1], [True, False, True, False]) == 0.75
    assert reward.auc([0.5, 0.5], [True, False]) == 0.5
    assert reward.auc([0.1, 0.9], [False, True]) == 1.0


def chains(only_train: bool, draws: int) -> tuple[list[str], list[labels.Row]]:
    """The right steps of a question about a training country, and its labelled chains."""

    async def run() -> list[labels.Row]:
        writers = labels.Writers(threads=1)
        try:
            return await writers.chains(row, 1, random.Random(0), draws, only_train)
        finally:
            await writers.close()

    file = ROOT / "examples/zoo/questions/two_hop_judges.jsonl"
    row = json.loads(file.read_text().splitlines()[0])
    return row["steps"], asyncio.run(run())


def test_steps_are_labelled_by_completing_them() -> None:
    """A right step can still come out right; a wrong capital cannot, but by luck."""
    right, rows = chains(only_train=True, draws=0)
    result = {row["steps"]: row["shares"] for row in rows}
    for row in rows:
        assert len(row["shares"]) == len(row["steps"])
        assert row["steps"][:-1] == () or result[row["steps"][:-1]] == row["shares"][:-1]
    assert result[tuple(right[:1])] == (1.0,) and result[tuple(right[:2])] == (1.0, 1.0)
    assert any(shares[-1] == 0 for shares in result.values())


def test_labelled_steps_for_training_name_no_country_of_another_part() -> None:
    """Members' wrong guesses do, where they are not left out."""

    def parts(rows: list[labels.Row]) -> set[str]:
        return {part for row in rows for step in row["steps"] for part in parts_named(step)}

    assert parts(chains(only_train=True, draws=4)[1]) == {"train"}
    assert parts(chains(only_train=False, draws=4)[1]) == {"train", "validation", "test"}
