"""Picks a token from a fused distribution: greedily, or by noise keyed by the token's text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.token.fusion.rows import Fused
from runtime.rng import gumbel


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request wants its tokens drawn."""

    temperature: float
    top_p: float
    seed: int


def choose(fused: Fused, wish: Wish, place: int, noise_keys: np.ndarray) -> int:
    """The key at ``place``. Greedy: the most probable, of equals the lowest key.

    Sampled: the nucleus of the tempered distribution (arXiv 1904.09751) with Gumbel noise, which
    hangs on seed, place and text alone, so it does not matter how the place was reached.
    """
    if wish.temperature == 0:
        return int(fused.keys[np.argmax(fused.logprobs)])
    scores = fused.logprobs / wish.temperature
    kept = nucleus(scores, wish.top_p)
    noise = gumbel(wish.seed, place, noise_keys[fused.keys[kept]])
    return int(fused.keys[kept[np.argmax(scores[kept] + noise)]])


def nucleus(scores: np.ndarray, top_p: float) -> np.ndarray:
    """Places of the smallest set of most probable tokens that holds ``top_p`` of the mass."""
    if top_p >= 1:
        return np.arange(len(scores))
    probabilities = np.exp(scores - scores.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    size = int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1
    return np.sort(order[:size])


def best(fused: Fused, count: int) -> list[tuple[int, float]]:
    """The ``count`` most probable keys with their logprobs."""
    order = np.argsort(-fused.logprobs, kind="stable")[:count]
    return [(int(fused.keys[i]), float(fused.logprobs[i])) for i in order]
