"""Answers that are asked for once: greedy members say the same again."""

from __future__ import annotations

from collections.abc import Sequence

from envs.members.base import AnswerSource
from runtime.data.query_log import Ask, Reply


class CachedAnswers:
    """Keeps replies, which cost again whenever they are given again. A failure is not kept: the
    next call may succeed."""

    def __init__(self, answers: AnswerSource) -> None:
        self._answers = answers
        self.known: dict[Ask, Reply] = {}
        """In the order in which they were asked for first."""

    def ask(self, asked: Sequence[Ask]) -> list[Reply]:
        new = list(dict.fromkeys(one for one in asked if one not in self.known))
        told = dict(zip(new, self._answers.ask(new) if new else [], strict=True))
        self.known |= {one: reply for one, reply in told.items() if reply.error is None}
        return [self.known.get(one) or told[one] for one in asked]

    def close(self) -> None:
        self._answers.close()
