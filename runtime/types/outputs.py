"""What engines return: generations, scores and next-token distributions.

Logprobs are natural logs of the model's own next-token distribution (temperature 1, no
processors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

Tokens: TypeAlias = Sequence[int]

ALL: Final = -1
"""``top_k`` value for the dense row over the whole vocabulary."""

EngineFinish: TypeAlias = Literal["eos", "stop", "words", "length", "deferred"]


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """Next-token logprobs at one position: the ``k`` best tokens, or all."""

    ids: np.ndarray | None
    """int64 [k], best first; ``None`` for a dense row, where the index is the token id."""
    logprobs: np.ndarray
    """float32 [k], or float32 [vocab_size]."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What an engine wrote after a prompt."""

    tokens: tuple[int, ...]
    """The new ids; ends with the EOS id when ``finish`` is "eos"."""
    logprobs: tuple[float, ...]
    finish: EngineFinish
    cached_tokens: int = 0
    """Prompt tokens whose keys and values came from the prefix cache."""
    top: tuple[Distribution, ...] | None = None
    tail_logprobs: tuple[float, ...] = ()
    """Logprobs of the last ``score_tail`` prompt tokens, if requested."""
    confidences: tuple[float, ...] = ()
    """With ``Sampling.defer``: the model's confidence before each token; values below the threshold
    stand before offered tokens. One more value when ``finish`` is "deferred"."""


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher-forced logprobs of one continuation."""

    logprobs: tuple[float, ...]
    top: tuple[Distribution, ...] | None = None
    cached_tokens: int = 0
