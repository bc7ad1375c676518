"""What it means that two engines agree."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from runtime.engines import Engine
from runtime.types.outputs import ALL, Distribution, Generation, Score
from runtime.types.sampling import Sampling

CLOSE: dict[str, float] = {"abs": 1e-3}
"""Natural-log probabilities, float32."""


def text(engine: Engine, seed: int, length: int) -> list[int]:
    """Random tokens, none of which ends a text."""
    choice = random.Random(seed)
    ids = [i for i in range(3, engine.spec.vocab_size - 8) if i not in engine.spec.eos_ids]
    return choice.choices(ids, k=length)


async def both(engines: Sequence[Engine], verb: str, *args: Any) -> None:
    """The same call on both engines: twice, so that it is served from their caches too."""
    for _ in range(2):
        one, other = await asyncio.gather(*(getattr(e, verb)(*args) for e in engines))
        agree(one, other)


def agree(one: Any, other: Any) -> None:
    """Texts are identical, logprobs within 1e-3."""
    assert type(one) is type(other)
    match one:
        case list():
            assert len(one) == len(other)
            for a, b in zip(one, other, strict=True):
                agree(a, b)
        case Generation():
            assert (one.tokens, one.finish) == (other.tokens, other.finish)
            assert one.logprobs == pytest.approx(other.logprobs, **CLOSE)
            assert one.tail_logprobs == pytest.approx(other.tail_logprobs, **CLOSE)
            agree(list(one.top or ()), list(other.top or ()))
        case Score():
            assert one.logprobs == pytest.approx(other.logprobs, **CLOSE)
            agree(list(one.top or ()), list(other.top or ()))
        case Distribution():
            # Near ties may come in another order; the values at each rank may not.
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-3)
            assert (one.ids is None) == (other.ids is None)
        case np.ndarray():
            np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-3)
        case _:
            raise AssertionError(f"no idea how to compare {one!r}")


async def every_verb_agrees(engines: Sequence[Engine], lengths: Sequence[int]) -> None:
    """Contexts of all ``lengths``; continuations shorter and longer than a block of the cache."""
    for n in lengths:
        prompt = text(engines[0], n, n)
        tails = [text(engines[0], 100 + k, k) for k in (1, 10, 0, 40, 70)]
        await both(engines, "score", prompt, tails, 3)
        greedy = Sampling(max_tokens=12, top_k=2)
        await both(engines, "generate", prompt, greedy, min(5, n - 1))
        await both(engines, "generate", prompt, Sampling(max_tokens=0), min(40, n - 1))
        endless = Sampling(max_tokens=12, ignore_eos=True)
        await both(engines, "generate", prompt, endless)
        await both(engines, "next_token", [prompt, prompt[:1]], ALL)
        await both(engines, "next_token", [prompt], 5)
