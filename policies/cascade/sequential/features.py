"""The features of DER's agent: one vector for the question, the last answer and the calls made.

Training and serving share this module, so that both compute the same features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def state_text(question: str, answer: str | None) -> str:
    """The encoder's input, as in the paper (arXiv 2412.07448); without an answer a blank."""
    return f"Question: {question} Answer: {' ' if answer is None else answer}"


@dataclass(frozen=True)
class Scaling:
    """Mean and spread of the encoder's vectors. Those of a language model differ little between
    texts; subtracting the mean separates them."""

    center: np.ndarray
    """float32 ``[hidden]``."""
    spread: np.ndarray
    """Three standard deviations, float32 ``[hidden]``, above 0."""


def scaling(texts: np.ndarray) -> Scaling:
    """Of encoded texts ``[n, hidden]`` such as the agent will see."""
    vectors = unit(texts)
    return Scaling(vectors.mean(axis=0), np.maximum(3 * vectors.std(axis=0), 1e-6))


def unit(texts: np.ndarray) -> np.ndarray:
    """Vectors at unit length, float32."""
    vectors = np.asarray(texts, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalised: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return normalised


def features(
    texts: np.ndarray, calls: Sequence[int], t_max: int, scale: Scaling | None = None
) -> np.ndarray:
    """float32 ``[n, hidden + 1]`` in [-1, 1]: encoded texts ``[n, hidden]`` at unit length, scaled,
    then the share of the calls that are spent, which the paper's state leaves out: without it the
    agent cannot know that its last call is near."""
    vectors = unit(texts)
    if scale is not None:
        vectors = (vectors - scale.center) / scale.spread
    spent = np.asarray(calls, dtype=np.float32)[:, None] / t_max
    return np.clip(np.concatenate([vectors, spent], axis=1), -1.0, 1.0)
