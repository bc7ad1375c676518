"""Two members without any model: the small one is right about letters, the large about all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.quality.config import ExactMatchConfig
from envs.quality.text_match import ExactMatch
from envs.token_routing.config import TokenReward
from envs.token_routing.env import TokenWorld
from envs.token_routing.model_pair import Look, TeacherForced
from envs.token_routing.preferences import Round
from runtime.artifacts.token_router import Router
from runtime.data.questions import Question
from runtime.types.outputs import Tokens

WIDTH = 4
EOS = 0
TASKS = [
    Question(f"q{n}", f"a{n}b{n + 1}c"[: 4 + n % 2], (), (), f"a{n}b{n + 1}c"[: 4 + n % 2])
    for n in range(8)
]
"""Answers of letters, which the small member knows, and figures, which it guesses."""


class Pair:
    """Tokens are characters. A state says whether the next one is a figure, and nothing else."""

    width, small, large, reads = WIDTH, "small", "large", "a small one"

    def __init__(self, lost: str = "") -> None:
        self.lost = lost
        self.calls: list[tuple[str, int]] = []

    def encode(self, text: str) -> tuple[int, ...]:
        return (*map(ord, text), EOS)

    def ends(self, ids: Sequence[int]) -> bool:
        return ids[-1] == EOS

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids if i != EOS)

    def _right(self, question: str, answer: Tokens) -> int:
        [task] = [task for task in TASKS if task.question == question]
        whole = self.encode(task.answer)
        return whole[min(len(answer), len(whole) - 1)]

    def _look(self, question: str, answer: Tokens) -> Look:
        token = self._right(question, answer)
        figure = chr(token).isdigit()
        state = np.array([1.0, float(figure), len(answer) / 8, 0.0], dtype=np.float32)
        return Look(state, ord("?") if figure else token)

    def looks(self, questions: Sequence[str], answers: Sequence[Tokens]) -> list[Look | None]:
        self.calls.append(("small", len(questions)))
        if self.lost == "small":
            return [None] * len(questions)
        return [self._look(q, a) for q, a in zip(questions, answers, strict=True)]

    def large_tokens(self, questions: Sequence[str], answers: Sequence[Tokens]) -> list[int | None]:
        self.calls.append(("large", len(questions)))
        if self.lost == "large":
            return [None] * len(questions)
        return [self._right(q, a) for q, a in zip(questions, answers, strict=True)]

    def teacher_force(
        self, questions: Sequence[str], texts: Sequence[Tokens]
    ) -> list[TeacherForced | None]:
        result: list[TeacherForced | None] = []
        for question, text in zip(questions, texts, strict=True):
            if self.lost == question:
                result.append(None)
                continue
            looks = [self._look(question, text[:n]) for n in range(len(text))]
            own = tuple(look.own for look in looks)
            right = tuple(self._right(question, text[:n]) for n in range(len(text)))
            states = np.stack([look.state for look in looks])
            small = tuple(0.0 if a == b else -5.0 for a, b in zip(own, text, strict=True))
            large = tuple(0.0 if a == b else -5.0 for a, b in zip(right, text, strict=True))
            result.append(TeacherForced(states, own, right, small, large))
        return result

    def write_on(
        self,
        questions: Sequence[str],
        answers: Sequence[Tokens],
        router: Router | None,
        threshold: float,
        most: int,
    ) -> list[tuple[int, ...] | None]:
        ends: list[tuple[int, ...] | None] = []
        for question, answer in zip(questions, answers, strict=True):
            ids = list(answer)
            while len(ids) < most and ids[-1] != EOS:
                look = self._look(question, ids)
                sure = router is None or router.confidence(look.state[None])[0] >= threshold
                ids.append(look.own if sure else self._right(question, ids))
            ends.append(tuple(ids))
        return ends

    def close(self) -> None:
        """Nothing is held open."""


def world(pair: Pair | None = None, alpha: float = 0.05) -> TokenWorld:
    quality = ExactMatch(ExactMatchConfig())
    return TokenWorld(TASKS, pair or Pair(), quality, TokenReward(alpha=alpha), most=8)


QUALITY = ExactMatch(ExactMatchConfig())


FIRST = Round(1, None, 0.5, 8, 0.5)
