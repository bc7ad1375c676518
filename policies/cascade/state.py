"""What DER's agent sees: one vector for the question, the last answer and the calls made.

Training and serving both go through here, so that an agent meets what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def state_text(question: str, answer: str | None) -> str:
    """What the encoder reads, as in the paper (arXiv 2412.07448): a blank is the first answer."""
    return f"Question: {question} Answer: {' ' if answer is None else answer}"


def features(texts: np.ndarray, calls: Sequence[int], t_max: int) -> np.ndarray:
    """float32 ``[n, hidden + 1]`` in [-1, 1]: encoded texts ``[n, hidden]`` at unit length, then
    the share of the calls that are spent, which the paper's state leaves out: without it the agent
    cannot know that its last call is near."""
    vectors = np.asarray(texts, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, 1e-12)
    spent = np.asarray(calls, dtype=np.float32)[:, None] / t_max
    return np.clip(np.concatenate([unit, spent], axis=1), -1.0, 1.0)
