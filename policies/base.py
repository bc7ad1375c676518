"""What every method is: one config, one class, one docstring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import ClassVar, Generic, TypeVar

from runtime.config import PolicyConfig
from runtime.session import Session
from runtime.types import Span

C = TypeVar("C", bound=PolicyConfig)


class Policy(ABC, Generic[C]):
    """A method. Holds its config and nothing of any request."""

    level: ClassVar[str]
    """Where in the survey's taxonomy: single, span, token, process, routing, selection, cascade."""
    paper: ClassVar[str] = ""
    """arXiv id."""
    title: ClassVar[str] = ""

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        """Commits spans to the session and yields them until ``session.ending`` is set."""
