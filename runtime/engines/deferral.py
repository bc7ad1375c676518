"""How sure a model is of its own next token, from its distribution alone: pure, for all engines.

All are in [0, 1] and the model writes on while its confidence is at least the threshold, so that a
higher threshold always hands over more. With a trained router the confidence is the router's
(runtime/artifacts/token_router.py).
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from runtime.types.outputs import Distribution
from runtime.types.sampling import Deferral, Signal


def confidence(by: Signal, row: Distribution, vocab_size: int, seed: int, position: int) -> float:
    """From a told distribution: dense, or the best tokens of it.

    ``entropy``: 1 - H / ln(vocabulary); what is not told counts as one token, so that a cut row
    seems surer than it is. ``margin``: the difference of the two highest probabilities. ``random``:
    a number that hangs on seed and position alone, so the threshold is the share handed over.
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
    raise ValueError(f"{by} does not follow from a distribution")


def chance(seed: int, position: int) -> float:
    """Uniform in [0, 1), apart from the noise that draws tokens."""
    digest = hashlib.blake2b(f"defer {seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2.0**53


class DeferralState:
    """One text on its way under a ``Deferral``: which token stands next, and whose it is."""

    def __init__(self, defer: Deferral) -> None:
        self._threshold = defer.threshold
        self._offered = list(defer.offered)
        self.confidences: list[float] = []

    def choose(self, confidence: float, own: int) -> int | None:
        """The token that stands next; ``None`` hands over. What was offered is of no more use once
        the text is another than it was written for."""
        self.confidences.append(confidence)
        offered = self._offered.pop(0) if self._offered else None
        if confidence >= self._threshold:
            if own != offered:
                self._offered.clear()
            return own
        return offered
