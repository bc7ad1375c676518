"""Where an environment's answers come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Ask:
    """One call: a member, the question, and the last answer, which the member is shown."""

    member: str
    question: str
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a call."""

    text: str | None
    """``None`` where it failed."""
    cost: float
    """In the configured currency; a call that failed costs what it had used."""
    seconds: float = 0.0
    error: str | None = None


class Answers(Protocol):
    """Live members, or a log of theirs. All calls of one ``ask`` are in flight together."""

    def ask(self, asked: Sequence[Ask]) -> list[Reply]:
        """One reply for each call, in order. A member's failure is a reply, not an exception."""
        ...

    def close(self) -> None: ...
