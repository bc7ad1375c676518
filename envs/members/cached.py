"""A cache of answers, for greedy members."""

from __future__ import annotations

from collections.abc import Sequence

from envs.members.base import AnswerSource
from runtime.data.query_log import MemberCall, Reply


class CachedAnswers:
    """Caches replies; a cached reply costs the same again. Failures are not cached."""

    def __init__(self, answers: AnswerSource) -> None:
        self._answers = answers
        self.known: dict[MemberCall, Reply] = {}
        """In the order of first request."""

    def ask(self, calls: Sequence[MemberCall]) -> list[Reply]:
        new = list(dict.fromkeys(one for one in calls if one not in self.known))
        replies = dict(zip(new, self._answers.ask(new) if new else [], strict=True))
        self.known |= {one: reply for one, reply in replies.items() if reply.error is None}
        return [self.known.get(one) or replies[one] for one in calls]

    def close(self) -> None:
        self._answers.close()
