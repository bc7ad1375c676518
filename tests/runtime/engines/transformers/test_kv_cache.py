"""What the prefix cache keeps, hands over, copies and drops."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.transformers.engine import TransformersLM
from runtime.engines.transformers.kv_cache import KeyValues, PrefixCache, Shape
from runtime.engines.transformers.radix_tree import Node, RadixTree, common_prefix
from runtime.types.sampling import Sampling

Open = Callable[..., TransformersLM]
SHAPE = Shape(2, 1, 4, torch.float32, torch.device("cpu"))


def text(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(1, 280), k=length)


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)


def test_a_common_prefix_is_counted_to_the_first_difference() -> None:
    assert common_prefix(ids(1, 2, 3), ids(1, 2, 4, 5)) == 2
    assert common_prefix(ids(1, 2), ids(1, 2, 3)) == 2
    assert common_prefix(ids(9), ids(1)) == 0
    assert common_prefix(ids(), ids(1)) == 0


short = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)


@given(st.lists(st.tuples(st.booleans(), short), max_size=30))
def test_the_tree_finds_what_comparing_with_every_sequence_finds(
    orders: list[tuple[bool, tuple[int, ...]]],
) -> None:
    tree: RadixTree[tuple[int, ...]] = RadixTree()
    held: dict[tuple[int, ...], Node[tuple[int, ...]]] = {}
    for adds, tokens in orders:
        shares = {other: common_prefix(ids(*other), ids(*tokens)) for other in held}
        most = max(shares.values(), default=0)
        found, shared = tree.longest(ids(*tokens))
        assert shared == most
        assert shares.get(found, 0) == most if found else most == 0
        related = any(n in (len(other), len(tokens)) for other, n in shares.items())
        if adds and not related:
            held[tokens] = tree.add(ids(*tokens), tokens)
        elif not adds and found:
            tree.remove(held.pop(found))
    for leaf in held.values():
        tree.remove(leaf)
    assert tree.longest(ids(0)) == tree.longest(ids(1)) == (None, 0)


def test_a_buffer_keeps_its_tokens_when_it_grows_and_when_it_is_forked() -> None:
    kv = KeyValues(SHAPE, 3)
    for place in kv.places(0, 3):
        place.copy_(torch.arange(24.0).view(2, 1, 3, 4))
    before = [part.clone() for part in kv.span(0, 3)]
    fork = kv.fork(2, 2)
    kv.reserve(65, held=3)
    assert kv.capacity == 128
    for old, new, forked in zip(before, kv.span(0, 3), fork.span(0, 2), strict=True):
        assert torch.equal(old, new)
        assert torch.equal(old[:, :, :2], forked)
    for place in kv.places(0, 1):
        place.zero_()
    assert torch.equal(before[0][:, :, :2], fork.span(0, 2)[0])


def test_the_least_recently_used_entry_is_dropped_first() -> None:
    one = KeyValues(SHAPE, 1).bytes
    cache = PrefixCache(2 * one)
    cache.put(ids(1, 1), KeyValues(SHAPE, 2), cache.bound)
    cache.put(ids(2, 2), KeyValues(SHAPE, 2), cache.bound)
    cache.longest(ids(1, 1, 7))
    cache.put(ids(3, 3), KeyValues(SHAPE, 2), cache.bound)
    assert (len(cache), cache.bytes) == (2, 2 * one)
    assert [cache.longest(ids(i, i))[1] for i in (1, 2, 3)] == [2, 0, 2]


def test_an_entry_that_another_one_covers_is_not_kept_twice() -> None:
    cache = PrefixCache(2**20)
    for tokens in ((1, 2), (1, 2, 3), (1, 2), (1, 2, 3)):
        cache.put(ids(*tokens), KeyValues(SHAPE, len(tokens)), cache.bound)
    assert len(cache) == 1
    assert cache.bytes == KeyValues(SHAPE, 3).bytes
    assert cache.longest(ids(1, 2, 3, 4))[1] == 3


def test_a_buffer_larger_than_the_bound_is_not_kept() -> None:
    cache = PrefixCache(10)
    cache.put(ids(1), KeyValues(SHAPE, 1), cache.bound)
    assert (len(cache), cache.bytes) == (0, 0)


async def test_continuing_a_scored_continuation_recomputes_one_token(lm: Open) -> None:
    engine = lm()
    context, winner, loser = text(1, 40), text(2, 6), text(3, 6)
    await engine.score(context, [loser, winner])
    written = await engine.generate([*context, *winner], Sampling(max_tokens=1))
    assert written.cached_tokens == 40 + 6 - 1


async def test_going_on_after_own_text_recomputes_one_token_in_the_same_buffer(
    lm: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(KeyValues, "fork")
    engine = lm()
    prompt = text(4, 20)
    first = await engine.generate(prompt, Sampling(max_tokens=5, ignore_eos=True))
    held = engine.occupancy
    again = await engine.generate([*prompt, *first.tokens], Sampling(max_tokens=5, ignore_eos=True))
    assert (first.cached_tokens, again.cached_tokens) == (0, 24)
    assert engine.occupancy == held
    straight = await lm(cache_mb=0).generate(prompt, Sampling(max_tokens=10, ignore_eos=True))
    assert straight.tokens == first.tokens + again.tokens


async def test_another_way_on_copies_the_common_part_and_leaves_the_original(lm: Open) -> None:
    engine = lm()
    context = text(5, 30)
    one, other = [*context, *text(6, 9)], [*context, *text(7, 9)]
    for tokens, cached in ((one, 0), (other, 30), (one, 38), (other, 38)):
        written = await engine.generate(tokens, Sampling(max_tokens=1))
        assert written.cached_tokens == cached
    assert engine.occupancy.cached == 2


async def test_a_shared_prompt_is_computed_once_by_calls_that_arrive_together(lm: Open) -> None:
    engine = lm(max_batch_tokens=16)
    prompt = text(8, 60)
    calls = [engine.generate(prompt, Sampling(max_tokens=1)) for _ in range(4)]
    written = await asyncio.gather(*calls)
    assert sorted(w.cached_tokens for w in written) == [0, 59, 59, 59]

    scores = await engine.score(text(9, 50), [text(10, 3), text(11, 4), text(12, 5)])
    assert sorted(s.cached_tokens for s in scores) == [0, 49, 49]


async def test_the_cache_stays_within_its_bytes(lm: Open) -> None:
    engine = lm("gemma3", cache_mb=1)
    one = Shape(3, 1, 8, torch.float32, torch.device("cpu")).bytes(128)
    fit = 2**20 // one
    for seed in range(fit + 4):
        await engine.generate(text(seed, 100), Sampling(max_tokens=2))
        assert engine.occupancy.cached_bytes <= 2**20
    assert engine.occupancy.cached == fit
    newest = await engine.generate(text(fit + 3, 100), Sampling(max_tokens=2))
    oldest = await engine.generate(text(0, 100), Sampling(max_tokens=2))
    assert newest.cached_tokens == 99 and oldest.cached_tokens <= 2


async def test_running_sequences_take_their_room_from_the_cache(lm: Open) -> None:
    engine = lm("gemma3", cache_mb=1)
    one = Shape(3, 1, 8, torch.float32, torch.device("cpu")).bytes(128)
    for seed in range(2**20 // one):
        await engine.generate(text(seed, 100), Sampling(max_tokens=2))
    full = engine.occupancy.cached_bytes
    endless = Sampling(max_tokens=100, ignore_eos=True)
    task = asyncio.create_task(engine.generate(text(99, 80), endless))
    while not engine.occupancy.running:
        await asyncio.sleep(0)
    assert engine.occupancy.cached_bytes <= full - one
    await task


async def test_a_cache_of_no_bytes_is_off(lm: Open) -> None:
    engine = lm(cache_mb=0)
    for _ in range(2):
        written = await engine.generate(text(1, 30), Sampling(max_tokens=1))
        assert written.cached_tokens == 0
    assert engine.occupancy.cached == 0
