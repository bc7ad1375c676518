"""Batched equals alone, cached equals uncached, and all of it equals a plain forward."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from runtime.engines.transformers.engine import TransformersLM
from runtime.errors import BadRequest
from runtime.types.outputs import ALL, Generation, Score
from runtime.types.sampling import Sampling

Open = Callable[..., TransformersLM]
Reference = Callable[..., torch.Tensor]
FAMILIES = ("llama", "qwen2", "gpt_neox", "gemma3", "gemma2", "gpt2")
CLOSE: dict[str, float] = {"abs": 1e-4}


def text(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(1, 280), k=length)


def taught(rows: torch.Tensor, tokens: list[int], start: int) -> list[float]:
    """Logprobs of ``tokens[start:]`` by a plain forward over all of them."""
    return [float(rows[i - 1, tokens[i]]) for i in range(start, len(tokens))]


@pytest.mark.parametrize("family", FAMILIES)
async def test_each_verb_equals_a_plain_forward(
    lm: Open, reference: Reference, family: str
) -> None:
    engine = lm(family, max_batch_tokens=16)
    prompt = text(1, 37)
    written = await engine.generate(prompt, Sampling(max_tokens=12, top_k=5), score_tail=4)
    whole = [*prompt, *written.tokens]
    rows = reference(family, whole)
    assert written.tokens == tuple(rows[36:-1].argmax(-1).tolist())
    assert list(written.logprobs) == pytest.approx(taught(rows, whole, 37), **CLOSE)
    assert list(written.tail_logprobs) == pytest.approx(taught(rows, prompt, 33), **CLOSE)
    assert written.top is not None and len(written.top) == len(written.tokens)
    best = rows[36].topk(5)
    assert written.top[0].ids is not None
    assert written.top[0].ids.tolist() == best.indices.tolist()
    assert written.top[0].logprobs.tolist() == pytest.approx(best.values.tolist(), **CLOSE)

    continuations = [text(2, 6), text(3, 1), [], text(4, 20)]
    for score, continuation in zip(
        await engine.score(prompt, continuations), continuations, strict=True
    ):
        tokens = [*prompt, *continuation]
        expected = taught(reference(family, tokens), tokens, 37)
        assert list(score.logprobs) == pytest.approx(expected, **CLOSE)

    prompts = [text(5, 3), prompt, text(6, 50)]
    for row, tokens in zip(await engine.next_token(prompts, ALL), prompts, strict=True):
        assert row.ids is None and row.logprobs.dtype == np.float32
        np.testing.assert_allclose(row.logprobs, reference(family, tokens)[-1], atol=1e-4)
    for state, tokens in zip(await engine.embed(prompts), prompts, strict=True):
        np.testing.assert_allclose(state, reference(family, tokens, True)[-1], atol=1e-4, rtol=1e-4)


def mixed_calls(engine: TransformersLM) -> list[Any]:
    """Calls of all verbs, some sharing prefixes of each other."""
    calls: list[Any] = []
    shared = text(7, 30)
    for i in range(6):
        prompt = [*shared[: 6 * i], *text(20 + i, 5 + i)]
        sampled = Sampling(max_tokens=10, temperature=1.0, top_p=0.9, seed=i, top_k=3)
        calls.append(engine.generate(prompt, sampled, score_tail=2))
        calls.append(engine.generate(prompt, Sampling(max_tokens=3 + i)))
        calls.append(engine.score(shared, [text(40 + i, 1 + 3 * i), text(50 + i, 4)], top_k=2))
        calls.append(engine.embed([prompt, shared]))
        calls.append(engine.next_token([shared[: 5 + i]], ALL))
    return calls


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, np.ndarray):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)
    elif isinstance(a, Generation):
        assert (a.tokens, a.finish) == (b.tokens, b.finish)
        assert a.logprobs == pytest.approx(b.logprobs, **CLOSE)
        assert a.tail_logprobs == pytest.approx(b.tail_logprobs, **CLOSE)
        assert_same(list(a.top or ()), list(b.top or ()))
    elif isinstance(a, Score):
        assert a.logprobs == pytest.approx(b.logprobs, **CLOSE)
        assert_same(list(a.top or ()), list(b.top or ()))
    else:
        assert (a.ids is None) == (b.ids is None)
        assert a.ids is None or a.ids.tolist() == b.ids.tolist()
        assert_same(a.logprobs, b.logprobs)


@pytest.mark.parametrize("family", ("llama", "gemma3"))
@pytest.mark.parametrize("cache_mb", (0, 64))
async def test_mixed_concurrent_calls_equal_the_same_calls_one_by_one_uncached(
    lm: Open, family: str, cache_mb: int
) -> None:
    alone = lm(family, cache_mb=0, max_sequences=1)
    one_by_one = [await call for call in mixed_calls(alone)]
    batched = lm(family, cache_mb=cache_mb, max_batch_tokens=48, max_sequences=16)
    for _ in range(2):
        at_once = await asyncio.gather(*mixed_calls(batched))
        for a, b in zip(one_by_one, at_once, strict=True):
            assert_same(a, b)


async def test_a_prompt_longer_than_a_batch_is_cut_into_pieces(
    lm: Open, reference: Reference
) -> None:
    engine = lm("gemma3", max_batch_tokens=16)
    prompt = text(8, 150)
    [score] = await engine.score(prompt, [text(9, 30)])
    tokens = [*prompt, *text(9, 30)]
    expected = taught(reference("gemma3", tokens), tokens, 150)
    assert list(score.logprobs) == pytest.approx(expected, **CLOSE)


async def test_sampled_text_does_not_depend_on_chunks_or_neighbours(lm: Open) -> None:
    engine = lm("llama")
    prompt = text(10, 12)
    sampling = Sampling(max_tokens=24, temperature=1.0, top_p=0.95, seed=5, ignore_eos=True)
    whole = (await engine.generate(prompt, sampling)).tokens
    assert len(whole) == 24
    written: list[int] = []
    while len(written) < 24:
        piece = Sampling(max_tokens=5, temperature=1.0, top_p=0.95, seed=5, ignore_eos=True)
        noise = [engine.generate(text(60 + i, 9), piece) for i in range(3)]
        chunk, *_ = await asyncio.gather(engine.generate([*prompt, *written], piece), *noise)
        written += chunk.tokens
    assert tuple(written[:24]) == whole
    other = Sampling(max_tokens=24, temperature=1.0, top_p=0.95, seed=6, ignore_eos=True)
    assert (await engine.generate(prompt, other)).tokens != whole


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", (0.0, 1.0))
async def test_a_guess_changes_no_text(lm: Open, family: str, temperature: float) -> None:
    engine = lm(family, max_batch_tokens=16)
    prompt = text(15, 21)
    plain = Sampling(14, temperature, top_p=0.95, seed=3, top_k=3)
    written = await engine.generate(prompt, plain, score_tail=3)
    right = written.tokens
    wrong = tuple((token + 1) % 280 for token in right)
    guesses = [
        right,
        wrong,
        (*right[:5], wrong[5], *right[6:]),
        (wrong[0], *right[1:]),
        (*right[:3], *wrong[3:6], *right[6:]),
        right[:4],
        (*right, *wrong),
    ]
    results = await asyncio.gather(
        *(engine.generate(prompt, replace(plain, guess=guess), score_tail=3) for guess in guesses)
    )
    for one in results:
        assert_same(one, written)
    # What a guess left in the cache is what was written.
    assert_same(
        await engine.generate([*prompt, *right], plain),
        await lm(family).generate([*prompt, *right], plain),
    )


async def test_a_right_guess_saves_passes_and_ends_where_the_text_does(lm: Open) -> None:
    engine = lm("llama")
    prompt = text(16, 12)
    plain = Sampling(20, 1.0, seed=1)
    right = (await engine.generate(prompt, plain)).tokens

    async def passes(guess: tuple[int, ...], **other: Any) -> int:
        before = engine._scheduler._passes
        results = await engine.generate(prompt, replace(plain, guess=guess, **other))
        assert results.tokens == right[: len(results.tokens)]
        return engine._scheduler._passes - before

    off = (right[9] + 1) % 280
    assert len(right) == 20
    assert await passes(()) == 20
    assert await passes(right) == 1
    assert await passes((*right[:9], off, *right[10:])) == 2
    assert await passes((off, *right[1:])) == 20
    assert await passes(right, max_tokens=7) == 1
    assert await passes(right, until_below=1.0) == 1


async def test_a_guess_outside_the_vocabulary_is_refused(lm: Open) -> None:
    with pytest.raises(BadRequest, match="outside the vocabulary"):
        await lm("llama").generate(text(17, 5), Sampling(4, guess=(10**6,)))


async def test_a_scored_tail_equals_a_score_whether_cached_or_not(lm: Open) -> None:
    engine = lm("llama")
    prompt, tail = text(11, 40), text(12, 7)
    first = await engine.generate([*prompt, *tail], Sampling(max_tokens=2), score_tail=7)
    again = await engine.generate([*prompt, *tail], Sampling(max_tokens=2), score_tail=7)
    only = await engine.generate([*prompt, *tail], Sampling(max_tokens=0), score_tail=7)
    [score] = await engine.score(prompt, [tail])
    assert (first.cached_tokens, again.cached_tokens) == (0, 39)
    assert only.tokens == () and only.finish == "length"
    for tailed in (first, again, only):
        assert tailed.tail_logprobs == pytest.approx(score.logprobs, **CLOSE)


async def test_bfloat16_runs_and_is_close_to_float32(lm: Open) -> None:
    exact, rough = lm("llama"), lm("llama", dtype="bfloat16")
    prompt, continuations = text(13, 30), [text(14, 12), text(15, 3)]
    pairs = zip(
        await exact.score(prompt, continuations), await rough.score(prompt, continuations),
        strict=True,
    )  # fmt: skip
    for a, b in pairs:
        assert np.mean(np.abs(np.subtract(a.logprobs, b.logprobs))) < 0.15
    written = await rough.generate(prompt, Sampling(max_tokens=8))
    assert 0 < len(written.tokens) <= 8 and all(p <= 0 for p in written.logprobs)
