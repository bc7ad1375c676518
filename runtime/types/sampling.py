"""How an engine continues a prompt, and when it defers to another model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np

Signal: TypeAlias = Literal["router", "entropy", "margin", "random"]
"""The confidence signal that decides whether a model writes the next token itself
(runtime/engines/deferral.py)."""


class TokenRouter(Protocol):
    """A trained token router; runtime/artifacts/token_router.py implements and stores it."""

    @property
    def layers(self) -> Sequence[tuple[np.ndarray, np.ndarray]]:
        """float32 weights ``[out, in]`` and biases ``[out]``, ReLU between layers."""
        ...

    @property
    def size(self) -> int:
        """Width of the hidden states."""
        ...

    def confidence(self, states: np.ndarray) -> np.ndarray:
        """Probabilities ``[n]`` that the model may write, for states ``[n, size]``."""
        ...


@dataclass(frozen=True, slots=True)
class Deferral:
    """Token-level deferral: generation stops before a token that another model should write.

    The model's confidence, in [0, 1], is computed before each token; generation continues while it
    is at least ``threshold``.
    """

    by: Signal
    threshold: float
    router: str = ""
    """Version of the router, with ``by: router``."""
    weights: TokenRouter | None = field(default=None, repr=False)
    """The router itself; sent only to an engine that does not hold this version."""
    offered: tuple[int, ...] = ()
    """The other model's draft from here on. Its tokens are accepted instead of deferring, as long
    as the text is the one that it was drafted for."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine continues a prompt."""

    max_tokens: int = 16
    """Upper bound on new tokens, EOS included."""
    temperature: float = 0.0
    """0 is greedy (ties go to the lowest token id)."""
    top_p: float = 1.0
    seed: int = 0
    """Noise is keyed by (seed, absolute position), so that chunks and batches do not change the
    text."""
    stop: tuple[str, ...] = ()
    """Generation ends with the token that completes one of these strings; a string may span
    tokens."""
    words: int | None = None
    """Ends with the first token after which this many words of the new text are complete, that is,
    followed by white space (runtime/text/words.py)."""
    top_k: int = 0
    """Alternatives returned at each position; ``ALL`` returns dense rows."""
    ignore_eos: bool = False
    """Never samples an EOS token (for benchmarks of a fixed length)."""
    until_below: float = 0.0
    """Ends, with ``finish`` "length", after the first token whose probability is lower: a draft
    that other models verify should not continue from an unlikely token."""
    text_noise_from: int | None = None
    """Draw with noise keyed by (seed, place, the token's bytes) instead (runtime/rng.py), so that
    models with different vocabularies draw alike; place 0 is this absolute position. An engine
    without support draws its own way: only the acceptance rate of drafts depends on it."""
    defer: Deferral | None = None
    """Defers to another model: ends as "deferred" before the first such token."""
    guess: tuple[int, ...] = ()
    """Likely next tokens. An engine that verifies them in one pass (speculative decoding, arXiv
    2211.17192) is faster; the text is the same."""
