"""vLLM's engine reads input embeddings from the checkpoint; they are the model's own."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.engines import Engine
from runtime.errors import BadRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("name", ["capitals", "languages", "neighbours", "large"])
async def test_both_engines_give_the_same_vectors(
    name: str, zoo_on_vllm: dict[str, Engine], zoo_on_transformers: dict[str, Engine]
) -> None:
    ours, theirs = zoo_on_vllm[name], zoo_on_transformers[name]
    ids = range(0, theirs.spec.vocab_size, 7)
    rows = await ours.vectors(ids)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, await theirs.vectors(ids))
    assert "vectors" in ours.spec.capabilities
    with pytest.raises(BadRequest, match="has no embedding"):
        await ours.vectors([10**6])
