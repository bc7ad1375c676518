"""Logprobs of given ids, noise keyed by text and early ends: vLLM against the embedded engine."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from runtime.engines import Engine
from runtime.errors import BadRequest
from runtime.types.outputs import ALL, Distribution, Generation, Tokens
from runtime.types.sampling import Sampling
from tests.support.engine_parity import agree, both, text

pytestmark = pytest.mark.asyncio(loop_scope="session")
Zoo = dict[str, Engine]
NAMES = ("small", "capitals")
KEYED = Sampling(max_tokens=16, temperature=1.0, top_p=0.8, ignore_eos=True)


@pytest.fixture(params=NAMES)
def engines(
    request: pytest.FixtureRequest, zoo_on_vllm: Zoo, zoo_on_transformers: Zoo
) -> tuple[Engine, Engine]:
    return zoo_on_vllm[request.param], zoo_on_transformers[request.param]


def ids_for(engine: Engine, seed: int, length: int) -> list[Tokens]:
    """None to four ids for each place; none at the first."""
    choice = random.Random(seed)
    counts = [0, *(choice.randrange(5) for _ in range(length - 1))]
    return [text(engine, 1000 * seed + i, count) for i, count in enumerate(counts)]


def requested_after_best(
    rows: Sequence[Distribution], wanted: Sequence[Tokens], dense: Sequence[Distribution]
) -> None:
    """After the three best come the ids asked for, with the values of the whole row."""
    for row, ids, whole in zip(rows, wanted, dense, strict=True):
        assert row.ids is not None and row.ids[3:].tolist() == list(ids)
        np.testing.assert_allclose(row.logprobs, whole.logprobs[row.ids], atol=1e-3)


async def test_ids_requested_agree_from_cold_and_cached_prefixes(
    engines: tuple[Engine, Engine],
) -> None:
    """Prompts around a block's border and of several blocks; texts that cross blocks."""
    for length in (1, 32, 33, 100):
        prompt = text(engines[0], 2000 + length, length)
        tails = [text(engines[0], 2100 + length + n, n) for n in (40, 1, 7)]
        also = [ids_for(engines[0], n + 1, n) for n in (40, 1, 7)]
        await both(engines, "score", prompt, [*tails, []], 3, [*also, []])
        dense = await engines[1].score(prompt, tails, ALL)
        result = await engines[0].score(prompt, tails, 3, also)
        for score, ids, whole in zip(result, also, dense, strict=True):
            assert score.logprobs == pytest.approx(whole.logprobs, abs=1e-3)
            requested_after_best(score.top or (), ids, whole.top or ())


async def test_ids_swallowed_by_the_cache_are_reported_again(zoo_on_vllm: Zoo) -> None:
    engine = zoo_on_vllm["large"]
    prompt, tail = text(engine, 2200, 100), text(engine, 2201, 70)
    also = [ids_for(engine, 9, 70)]
    [first] = await engine.score(prompt, [tail], 3, also)
    [again] = await engine.score(prompt, [tail], 3, also)
    assert again.cached_tokens > len(prompt), "otherwise this tests nothing"
    agree([first], [again])
    for one, other in zip(first.top or (), again.top or (), strict=True):
        assert one.ids is not None and other.ids is not None
        assert one.ids[3:].tolist() == other.ids[3:].tolist()


async def test_next_tokens_requested_agree(engines: tuple[Engine, Engine]) -> None:
    prompts = [text(engines[0], 2300 + n, n) for n in (1, 33, 80)]
    also: list[Tokens] = [[9, 700], (), [5, 5]]
    await both(engines, "next_token", prompts, 3, also)
    dense = await engines[1].next_token(prompts, ALL)
    requested_after_best(await engines[0].next_token(prompts, 3, also), also, dense)


async def test_ids_that_fit_no_place_are_refused(zoo_on_vllm: Zoo) -> None:
    engine = zoo_on_vllm["small"]
    size = engine.spec.vocab_size
    for top_k, also in ((3, [[[5]]]), (3, [[[5]], [[5]]]), (3, [[[size], []], []]), (0, [[], []])):
        with pytest.raises(BadRequest):
            await engine.score([5, 6], [[7, 8], [9]], top_k, also)
    with pytest.raises(BadRequest, match="2 entries for 1"):
        await engine.next_token([[5]], 3, [[5], [6]])


@pytest.mark.parametrize("seed", range(3))
async def test_noise_keyed_by_text_draws_the_same_text(
    engines: tuple[Engine, Engine], seed: int
) -> None:
    prompt = text(engines[0], 2400 + seed, 20)
    drawn = replace(KEYED, seed=seed, text_noise_from=len(prompt) - 4)
    await both(engines, "generate", prompt, drawn)
    whole = (await engines[0].generate(prompt, drawn)).tokens
    first = (await engines[0].generate(prompt, replace(drawn, max_tokens=7))).tokens
    rest = await engines[0].generate([*prompt, *first], replace(drawn, max_tokens=9))
    assert (*first, *rest.tokens) == whole
    elsewhere = replace(drawn, text_noise_from=len(prompt) - 5)
    for other in (elsewhere, replace(drawn, text_noise_from=None)):
        assert (await engines[0].generate(prompt, other)).tokens != whole


async def test_texts_with_either_noise_and_none_share_a_batch(
    engines: tuple[Engine, Engine],
) -> None:
    ways = [
        replace(KEYED, text_noise_from=20),
        replace(KEYED, text_noise_from=None),
        replace(KEYED, temperature=0.0, text_noise_from=20),
        replace(KEYED, seed=1, top_p=1.0, text_noise_from=12, top_k=3),
        replace(KEYED, ignore_eos=False, temperature=1.5, text_noise_from=20),
    ]

    async def at_once(engine: Engine) -> list[Generation]:
        requested = (engine.generate(text(engine, 2500 + i, 20), way) for i, way in enumerate(ways))
        return await asyncio.gather(*requested)

    agree(await at_once(engines[0]), await at_once(engines[1]))


async def test_texts_end_at_the_same_unlikely_token(engines: tuple[Engine, Engine]) -> None:
    for seed in range(3):
        prompt = text(engines[0], 2600 + seed, 20)
        free = replace(KEYED, seed=seed, top_p=1.0, text_noise_from=20)
        whole = await engines[1].generate(prompt, free)
        values = sorted(whole.logprobs)
        gaps = [(a + b) / 2 for a, b in zip(values, values[1:], strict=False) if b - a > 1e-2]
        for least in gaps[:: max(1, len(gaps) // 3)]:
            first = next(i for i, logprob in enumerate(whole.logprobs) if logprob < least)
            cut = replace(free, until_below=math.exp(least), top_k=2)
            await both(engines, "generate", prompt, cut)
            ended = await engines[0].generate(prompt, cut)
            assert (ended.tokens, ended.finish) == (whole.tokens[: first + 1], "length")
            assert ended.top is not None and len(ended.top) == first + 1
