"""Rows that a model returned lately are not computed again to name more of their tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from runtime.engines.transformers.engine import TransformersLM
from runtime.engines.transformers.logits_cache import LogitsCache, tops
from runtime.types.outputs import ALL
from runtime.types.sampling import Sampling

PROMPT, TAIL = [7, 8, 9, 10], [11, 12, 13]
ALSO = [[3, 200], [], [5]]


def passes(engine: TransformersLM) -> int:
    return engine._scheduler._passes


async def test_a_second_call_for_the_same_places_takes_no_pass(
    lm: Callable[..., TransformersLM],
) -> None:
    engine, fresh = lm("llama"), lm("llama", rows_mb=0)
    [first] = await engine.score(PROMPT, [TAIL], 4)
    before = passes(engine)
    [second] = await engine.score(PROMPT, [TAIL], 4, [ALSO])
    [row] = await engine.next_token([[*PROMPT, *TAIL[:2]]], 2, [[1, 2, 3]])
    assert passes(engine) == before
    [[known], [expected]] = [
        await fresh.next_token([[*PROMPT, *TAIL[:2]]], 2, [[1, 2, 3]]),
        await fresh.score(PROMPT, [TAIL], 4, [ALSO]),
    ]
    assert second.logprobs == pytest.approx(first.logprobs, abs=1e-5)
    for found, reference in zip(
        (*(second.top or ()), row), (*(expected.top or ()), known), strict=True
    ):
        assert found.ids is not None and reference.ids is not None
        assert found.ids.tolist() == reference.ids.tolist()
        np.testing.assert_allclose(found.logprobs, reference.logprobs, atol=1e-5)


async def test_what_was_written_is_remembered_too(lm: Callable[..., TransformersLM]) -> None:
    engine = lm("llama")
    written = await engine.generate(PROMPT, Sampling(max_tokens=3, top_k=2, ignore_eos=True))
    before = passes(engine)
    [reference] = await engine.score(PROMPT, [written.tokens], 2, [[[5], [6], [7]]])
    assert passes(engine) == before
    assert reference.logprobs == pytest.approx(written.logprobs, abs=1e-5)


async def test_other_places_are_computed(lm: Callable[..., TransformersLM]) -> None:
    engine = lm("llama")
    await engine.score(PROMPT, [TAIL], 4)
    for prompt, tail in (([*PROMPT[:-1], 99], TAIL), (PROMPT, [*TAIL, 14])):
        before = passes(engine)
        await engine.score(prompt, [tail], 4, [[[3]] * len(tail)])
        assert passes(engine) > before


async def test_a_bound_of_zero_keeps_nothing(lm: Callable[..., TransformersLM]) -> None:
    engine = lm("llama", rows_mb=0)
    await engine.score(PROMPT, [TAIL], 4)
    before = passes(engine)
    await engine.score(PROMPT, [TAIL], 4, [ALSO])
    assert passes(engine) > before and engine._logits_cache.bytes == 0


def test_the_oldest_rows_give_way() -> None:
    seen = LogitsCache(limit_bytes=3 * 40)
    for place in (0, 1, 2, 1, 3):  # twice the same is one
        seen.put([place], torch.full((10,), float(place)), 0.0)
    assert seen.bytes == 120
    assert seen.find([[0]]) is None and seen.find([[1], [0]]) is None
    rows = seen.find([[3], [1], [2]])
    assert rows is not None and [float(row.logits[0]) for row in rows] == [3.0, 1.0, 2.0]
    seen.put([4], torch.zeros(100), 0.0)  # larger than all the room there is
    assert seen.find([[4]]) is None and seen.bytes == 120


def test_best_of_equals_are_in_the_order_of_their_ids() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 9.0]])
    norms = torch.logsumexp(logits, dim=-1)
    first, second = tops(logits, norms, 3, [[0], []])
    assert first.ids is not None and second.ids is not None
    assert first.ids.tolist() == [1, 2, 3, 0] and second.ids[0] == 3
    np.testing.assert_allclose(np.exp(first.logprobs).sum(), 1.0, atol=1e-6)
    assert [row.ids for row in tops(logits, norms, ALL, ())] == [None, None]


@pytest.mark.parametrize("count", (3, 20, 70))
async def test_rows_of_large_passes_do_not_hold_the_whole_pass(
    lm: Callable[..., TransformersLM], count: int
) -> None:
    engine = lm("llama", max_batch_tokens=512)
    await engine.score(PROMPT, [[20 + n % 200 for n in range(count)]], 4)
    rows = list(engine._logits_cache._rows.values())
    assert len(rows) == (count if count <= 64 else 0)
    held = {row.logits.untyped_storage().nbytes() // row.logits.nbytes for row in rows}
    assert held <= ({1} if count > 16 else {count})
