"""Quality by a process reward model: the value of an answer's last step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime.data.questions import Question
from runtime.rewards.base import Reasoning

Judge = Callable[[Sequence[Reasoning]], Sequence[float]]
"""Values of chains' last steps."""


class RewardModel:
    """Lines are steps; an empty answer has quality 0."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        chains = {}
        for place, (answer, task) in enumerate(zip(answers, tasks, strict=True)):
            steps = tuple(line.strip() for line in answer.splitlines() if line.strip())
            if steps:
                chains[place] = Reasoning(task.question, steps, len(steps) - 1)
        scores = self._judge(list(chains.values())) if chains else []
        values = dict(zip(chains, scores, strict=True))
        return [values.get(place, 0.0) for place in range(len(answers))]
