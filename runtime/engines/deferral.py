"""Confidence of a model in its next token, from its distribution; pure, for all engines.

Confidences are in [0, 1]. The model writes while its confidence is at least the threshold, so a
higher threshold defers more tokens. A trained router gives its own confidence
(runtime/artifacts/token_router.py).
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from runtime.types.outputs import Distribution
from runtime.types.sampling import Deferral, Signal


def confidence(by: Signal, row: Distribution, vocab_size: int, seed: int, position: int) -> float:
    """The confidence from a distribution, dense or top k.

    ``entropy``: 1 - H / ln(vocabulary); the mass outside the top k counts as one token, which
    overestimates the confidence. ``margin``: the difference of the two highest probabilities.
    ``random``: a uniform number from seed and position, so that the threshold is the expected share
    of deferred tokens.
    """
    if by == "random":
        return chance(seed, position)
    probabilities = np.exp(row.logprobs.astype(np.float64))
    if by == "margin":
        best = np.sort(probabilities)[-2:]
        return float(best[-1] - best[0]) if len(best) > 1 else float(best[0])
    if by == "entropy":
        rest = max(0.0, 1.0 - float(probabilities.sum()))
        positive = probabilities[probabilities > 0]
        entropy = -float((positive * np.log(positive)).sum()) - (
            rest * math.log(rest) if rest > 0 else 0
        )
        return min(max(1.0 - entropy / math.log(vocab_size), 0.0), 1.0)
    raise ValueError(f"signal {by!r} cannot be computed from a distribution")


def chance(seed: int, position: int) -> float:
    """Uniform in [0, 1), independent of the noise for sampling."""
    digest = hashlib.blake2b(f"defer {seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2.0**53


class DeferralState:
    """State of one generation under a ``Deferral``."""

    def __init__(self, defer: Deferral) -> None:
        self._threshold = defer.threshold
        self._offered = list(defer.offered)
        self.confidences: list[float] = []

    def choose(self, confidence: float, own: int) -> int | None:
        """The next token; ``None`` defers. The offered tokens are dropped once the text differs
        from the one that they were drafted for."""
        self.confidences.append(confidence)
        offered = self._offered.pop(0) if self._offered else None
        if confidence >= self._threshold:
            if own != offered:
                self._offered.clear()
            return own
        return offered
