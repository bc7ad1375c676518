"""How good an answer is, in [0, 1]."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from envs.quality.config import ExactMatchConfig, TokenF1Config
from runtime.data.grading import answers_match, extract_answer
from runtime.data.questions import Question


class ExactMatch:
    def __init__(self, config: ExactMatchConfig) -> None:
        self._pattern = config.pattern

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        return [
            float(answers_match(extract_answer(answer, self._pattern), task.answer))
            for answer, task in zip(answers, tasks, strict=True)
        ]


class TokenF1:
    def __init__(self, config: TokenF1Config) -> None:
        self._pattern = config.pattern

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        return [
            _f1(_words(extract_answer(answer, self._pattern) or ""), _words(task.answer))
            for answer, task in zip(answers, tasks, strict=True)
        ]


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SIGNS = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.casefold().translate(_SIGNS)).split()


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))
