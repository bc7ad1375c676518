"""The protocol of qualities: answers to values in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.data.questions import Question


class Quality(Protocol):
    """Judges answers to questions."""

    def judge(self, answers: Sequence[str], tasks: Sequence[Question]) -> list[float]:
        """One value in [0, 1] for each answer."""
        ...
