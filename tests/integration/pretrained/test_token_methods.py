"""Token methods on two pretrained LLMs with vocabularies of 49,152 and 262,144 tokens."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from runtime.engines import Engine
from runtime.types.query import Message
from tests.support.local_stack import ask

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.pretrained,
    pytest.mark.timeout(1800),
]
PROMPTS = (
    "Write two sentences about the sea.",
    "What is the capital of France, and why is it famous?",
    "Explain in a few sentences why the sky is blue.",
    "Name three uses of a spoon.",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did she sell altogether?",
    "Übersetze ins Deutsche: The café is closed on Sundays.",
    "def fibonacci(n):",
    "Is 17 a prime number? Answer with yes or no.",
    "Write a haiku with an emoji 🌊.",
    "List the days of the week, each on a line.",
)
METHODS: dict[str, dict[str, Any]] = {
    "gac": {"type": "gac"},
    "unite": {"type": "unite"},
    "packllm": {"type": "packllm"},
    "deepen": {"type": "deepen"},
}
SAMPLED: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}


@pytest.fixture(scope="module")
def config(quickstart: AppConfig) -> AppConfig:
    document = quickstart.model_dump(mode="json")
    members = list(document["members"])
    ensembles = {name: {"members": members, **fields} for name, fields in METHODS.items()}
    ensembles |= {f"{name}-plain": {**fields, "draft": 0} for name, fields in ensembles.items()}
    return AppConfig.model_validate({**document, "ensembles": ensembles})


async def test_real_prompts_are_answered_alike_by_both_loops(
    config: AppConfig, engines: dict[str, Engine]
) -> None:
    """All ten greedy, every second one sampled."""
    stack = LocalStack(config, engines)
    try:
        for method in METHODS:
            for sampling, step in (({}, 1), (SAMPLED, 2)):
                for seed, prompt in enumerate(PROMPTS[::step]):
                    request = {"messages": (Message("user", prompt),), "max_tokens": 10, **sampling}
                    drafted = await ask(stack, method, seed=seed, **request)
                    plain = await ask(stack, f"{method}-plain", seed=seed, **request)
                    assert drafted.text == plain.text, (method, prompt)
    finally:
        await stack.close()
