"""The source of an environment's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.data.query_log import MemberCall, Reply


class AnswerSource(Protocol):
    """Live members, or a log of their answers. Calls of one ``ask`` run concurrently."""

    def ask(self, calls: Sequence[MemberCall]) -> list[Reply]:
        """One reply for each call, in order. A member's failure is a reply, not an exception."""
        ...

    def close(self) -> None: ...
