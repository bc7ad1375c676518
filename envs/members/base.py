"""Where an environment's answers come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.data.query_log import Ask, Reply


class AnswerSource(Protocol):
    """Live members, or a log of theirs. All calls of one ``ask`` are in flight together."""

    def ask(self, asked: Sequence[Ask]) -> list[Reply]:
        """One reply for each call, in order. A member's failure is a reply, not an exception."""
        ...

    def close(self) -> None: ...
