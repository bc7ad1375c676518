"""A tree search on two pretrained LLMs, over questions of GSM8K. Models this small do not solve
them: what is tested is that searches run from end to end."""

from __future__ import annotations

import json

import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from policies.process.tree import Tree
from runtime.engines import Engine
from runtime.types.query import Budget, Message
from tests.support.local_stack import ask
from tests.support.paths import SHARED

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.pretrained,
    pytest.mark.timeout(900),
]
QUESTIONS = SHARED / "data" / "questions" / "gsm8k_test.jsonl"


@pytest.mark.skipif(not QUESTIONS.exists(), reason=f"no GSM8K questions at {QUESTIONS}")
async def test_gsm8k_questions_are_searched_by_the_members_own_likelihood(
    quickstart: AppConfig, engines: dict[str, Engine]
) -> None:
    document = quickstart.model_dump(mode="json")
    ensemble = {"type": "le-mcts", "members": list(document["members"]), "reward": "likelihood"}
    fields = {"n_iter": 8, "step_tokens": 24, "max_steps": 4}
    document["ensembles"] = {
        "search": ensemble | fields,
        "beams": ensemble | {"type": "ebs", "beams": 2, "step_tokens": 24, "max_steps": 2},
    }
    lines = QUESTIONS.read_text().splitlines()[:2]
    stack = LocalStack(AppConfig.model_validate(document), engines)
    try:
        for line in lines:
            messages = (Message("user", json.loads(line)["question"]),)
            answer = await ask(stack, "search", messages=messages, max_tokens=96, trace="full")
            state = answer.summary["full"]["state"]
            tree = Tree.load(state["tree"])
            assert state["iterations"] == 8 and 3 <= len(tree.nodes) <= 9
            assert all(0 <= step.value <= 1 for step in tree)
            assert len({name for step in tree for name in step.authors}) == 2
            path = tree.path(tree.best().id)
            assert answer.text.rstrip("\n") == "".join(step.text for step in path).rstrip("\n")
            cached = sum(answer.member(name)["cached_tokens"] for name in document["members"])
            read = sum(answer.member(name)["prompt_tokens"] for name in document["members"])
            assert cached > read, "siblings find the question and the steps before them cached"
            again = await ask(
                stack, "search", messages=messages, max_tokens=96, budget=Budget(calls=6)
            )
            assert again.end.stop_reason in ("budget_calls", "eos") and again.text
        beams = await ask(stack, "beams", messages=messages, max_tokens=96)
        assert beams.text and len(beams.summary["spans"]) <= 2
    finally:
        await stack.close()
