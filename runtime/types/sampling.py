"""How an engine continues a prompt, and where it hands over to another model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from runtime.artifacts.token_router import Router

Signal: TypeAlias = Literal["router", "entropy", "margin", "random"]
"""What tells whether a model had better write the next token itself
(runtime/engines/deferral.py)."""


@dataclass(frozen=True, slots=True)
class Deferral:
    """Where a text is handed over: before a token that somebody else had better write.

    Before each token the writer's confidence is computed, in [0, 1]; it goes on while that is at
    least ``threshold``.
    """

    by: Signal
    threshold: float
    router: str = ""
    """Version of the router that tells, with ``by: router``."""
    weights: Router | None = field(default=None, repr=False)
    """Itself, for an engine that does not know it: one that does is spared the message."""
    offered: tuple[int, ...] = ()
    """What the other model would write from here on, as far as it has said: taken instead of
    handing over, as long as the text is the one that it was written for."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine continues a prompt."""

    max_tokens: int = 16
    """Upper bound on new tokens, the EOS included."""
    temperature: float = 0.0
    """0 is greedy (ties go to the lowest token id)."""
    top_p: float = 1.0
    seed: int = 0
    """Noise is keyed by (seed, absolute position), so chunks and batches do not change the text."""
    stop: tuple[str, ...] = ()
    """Generation ends with the token that completes any of these strings, across token borders."""
    words: int | None = None
    """Ends with the first token after which this many words of the new text are complete, that is,
    followed by white space (runtime/text/words.py)."""
    top_k: int = 0
    """Alternatives returned at each position; ``ALL`` returns dense rows."""
    ignore_eos: bool = False
    """Never picks an end-of-sequence token (benchmarks ask for a fixed length)."""
    until_below: float = 0.0
    """Ends, as at the limit, with the first token to which the model gives a lower probability: a
    draft that is judged by others had better not go on from a guess."""
    text_noise_from: int | None = None
    """Draw with noise keyed by (seed, place, the token's bytes) instead (runtime/rng.py), so that
    models with other vocabularies draw alike; place 0 is this absolute position. An engine that
    cannot draws its own way: only how often drafts are accepted depends on it."""
    defer: Deferral | None = None
    """Hands over to somebody else: ends as ``deferred`` before the first such token."""
    guess: tuple[int, ...] = ()
    """Tokens that may well come next. An engine that checks them in one pass instead of writing
    them one by one (speculative decoding, arXiv 2211.17192) is faster; the text is the same."""
