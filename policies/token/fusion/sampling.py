"""Picks a token from a fused distribution: greedily, or by noise keyed by the token's text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.token.fusion.rows import Fused
from runtime.rng import gumbel


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one request's tokens are drawn."""

    temperature: float
    top_p: float
    seed: int


def choose(fused: Fused, params: SamplingParams, place: int, noise_keys: np.ndarray) -> int:
    """The key at ``place``. Greedy: the most probable; ties: the lowest key.

    Sampled: the nucleus of the tempered distribution (arXiv 1904.09751) with Gumbel noise that
    depends on seed, place and the token's bytes alone, so drafting does not change the choice.
    """
    if params.temperature == 0:
        return int(fused.keys[np.argmax(fused.logprobs)])
    scores = fused.logprobs / params.temperature
    inside = nucleus(scores, params.top_p)
    noise = gumbel(params.seed, place, noise_keys[fused.keys[inside]])
    return int(fused.keys[inside[np.argmax(scores[inside] + noise)]])


def nucleus(scores: np.ndarray, top_p: float) -> np.ndarray:
    """Indices of the smallest set of most probable tokens that holds ``top_p`` of the mass."""
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
