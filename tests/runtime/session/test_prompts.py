"""A prompt far over the window is refused by its beginning; one of few, long tokens is read."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import ContextOverflow
from tests.support.local_stack import ask, running

WORD = "w" * 100


def config() -> dict[str, Any]:
    table = {WORD: {"<eos>": 1}}
    engine = {"type": "table", "vocabulary": [WORD], "table": table, "context_length": 50}
    return {"members": {"m": {"engine": engine}}}


async def test_a_long_text_of_few_tokens_fits() -> None:
    async with running(config()) as stack:
        result = await ask(stack, "m", messages=(), prompt=WORD * 40, max_tokens=4)
    assert result.end.prompt_tokens == 41  # with BOS


async def test_a_text_of_too_many_tokens_is_counted_as_far_as_needed() -> None:
    async with running(config()) as stack:
        with pytest.raises(ContextOverflow, match="at least [0-9]+ tokens") as far:
            await ask(stack, "m", messages=(), prompt="x" * 1_000_000, max_tokens=4)
        with pytest.raises(ContextOverflow, match="has 61 tokens") as near:
            await ask(stack, "m", messages=(), prompt=WORD * 60, max_tokens=4)
    assert 50 < far.value.tokens < 1000 and near.value.tokens == 61
