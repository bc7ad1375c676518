"""Two pretrained LLMs with different tokenizers (fetched by ``make test-pretrained``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch

from benchmarks.naive_specfuse import Naive, write
from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from runtime.engines import Engine
from runtime.types.query import Message
from tests.support.local_stack import Answer, ask

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.pretrained,
    pytest.mark.timeout(900),
]
PROMPTS = ("The three primary colours are", "Once upon a time there was a")


@pytest.fixture(scope="module")
def naive(folders: dict[str, Path]) -> dict[str, Naive]:
    torch.set_num_threads(1)
    return {name: Naive.load(folder) for name, folder in folders.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(quickstart: AppConfig, engines: dict[str, Engine]) -> AsyncIterator[LocalStack]:
    stack = LocalStack(quickstart, engines)
    yield stack
    await stack.close()


async def written(stack: LocalStack, **fields: Any) -> Answer:
    return await ask(stack, messages=(), ignore_eos=True, **fields)


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_specfuse_writes_what_the_naive_loop_writes(
    stack: LocalStack, naive: dict[str, Naive], prompt: str
) -> None:
    expected = write(naive, prompt, 32, "smollm2")
    answer = await written(stack, model="specfuse", prompt=prompt, max_tokens=32, temperature=0.0)
    assert answer.text == expected
    assert answer.end.completion_tokens == 32


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
async def test_a_member_alone_writes_what_plain_transformers_writes(
    stack: LocalStack, naive: dict[str, Naive], name: str
) -> None:
    model = naive[name]
    ids = model.tokenizer.encode_prompt(PROMPTS[0])
    out = model.model.generate(  # type: ignore[operator]
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=24,
        do_sample=False,
        suppress_tokens=list(model.tokenizer.eos_ids),
        pad_token_id=0,
    )
    expected = model.tokenizer.decode(out[0, len(ids) :].tolist())
    answer = await written(stack, model=name, prompt=PROMPTS[0], max_tokens=24, temperature=0.0)
    assert answer.text == expected


async def test_both_llms_contribute_to_a_chat_answer(stack: LocalStack) -> None:
    question = Message("user", "Explain in a few sentences why the sky is blue.")
    answer = await ask(stack, "sweetspan", max_tokens=40, messages=(question,))
    assert all(member["calls"] > 2 for member in answer.summary["members"])
    assert all(member["share"] > 0 for member in answer.summary["members"])
    assert "\ufffd" not in answer.text
    assert sum(member["share"] for member in answer.summary["members"]) == pytest.approx(
        1, abs=0.01
    )
