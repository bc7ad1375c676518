"""What every method is: one config, one class, one docstring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar, Generic, TypeVar

from runtime.config.ensembles import PolicyConfig
from runtime.errors import BadRequest
from runtime.session.connection import Connection
from runtime.session.session import Session
from runtime.types.spans import Progress, Span, TokenChoice

C = TypeVar("C", bound=PolicyConfig)


class Policy(ABC, Generic[C]):
    """A method. Holds its config and nothing of any request."""

    level: ClassVar[str]
    """Where in the survey's taxonomy: single, span, token, process, routing, selection, cascade."""
    paper: ClassVar[str] = ""
    """arXiv id."""
    title: ClassVar[str] = ""
    tells_logprobs: ClassVar[bool] = False
    """Whether spans hold their tokens, with the probabilities that they were chosen by."""
    can_score: ClassVar[bool] = False
    """Whether ``score`` is there."""
    scoreless: ClassVar[str] = (
        "this method chooses between whole pieces of text and gives no token a probability"
    )
    """Why not, where one of both is missing."""

    def __init__(self, config: C) -> None:
        self.config = config

    async def warm(self, connections: Mapping[str, Connection]) -> None:
        """Makes ready what the first request would have to wait for. The members are open; whoever
        calls this does not mind if it fails, since a request will try again."""

    @abstractmethod
    def answer(self, session: Session) -> AsyncGenerator[Span | Progress, None]:
        """Commits spans to the session and yields them until ``session.ending`` is set. A method
        that searches long before its first span may yield its progress meanwhile; whatever another
        coordinator needs to go on from there is in ``session.state`` at that moment."""

    async def score(self, session: Session) -> list[TokenChoice]:
        """The prompt's tokens as the caller sent them, each with the logprob that this method gives
        it after those before it. For methods that can: ``can_score``."""
        raise BadRequest(self.scoreless, "echo", "unsupported_parameter")
