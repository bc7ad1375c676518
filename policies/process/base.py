"""The base of methods that search for a chain of steps: turns the chain into the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

from policies.base import Need, Policy
from policies.process.config import LIKELIHOOD, ProcessConfig
from policies.process.ranking import place
from runtime.session.session import Session
from runtime.text.draft import Draft
from runtime.types.events import StopReason
from runtime.types.spans import Progress, Span

P = TypeVar("P", bound=ProcessConfig)


@dataclass(frozen=True, slots=True)
class Line:
    """A chosen step."""

    text: str
    author: str
    value: float
    final: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search."""

    lines: tuple[Line, ...]
    finished: bool
    """Whether the last line ends an answer; otherwise this is the best incomplete chain."""
    stopped_by: str | None = None
    """The limit that ended the search early, if one did."""


class ProcessPolicy(Policy[P]):
    """search -> the best chain -> its steps as spans, each by its author.

    ``session.state`` is complete at each yielded progress and span, so another coordinator can
    resume from either.
    """

    level: ClassVar[str] = "process"
    needs: ClassVar[tuple[Need, ...]] = (
        Need("generate"),
        Need("score", when={"reward": (LIKELIHOOD,)}),
    )
    no_logprobs_reason: ClassVar[str] = (
        "this method chooses between whole lines and gives no token a score"
    )

    async def answer(self, session: Session) -> AsyncGenerator[Span | Progress, None]:
        state = session.state
        if "chosen" not in state:
            # Closed at once when the caller leaves, so that no further calls are made.
            async with aclosing(self.search(session)) as search:
                async for event in search:
                    if isinstance(event, Progress):
                        yield event
                    else:
                        _choose(session, event)
        chosen: dict[str, Any] = state["chosen"]
        while session.ending is None and chosen["emitted"] < len(chosen["lines"]):
            line = chosen["lines"][chosen["emitted"]]
            chosen["emitted"] += 1
            yield self._commit(session, line, last=chosen["emitted"] == len(chosen["lines"]))
        session.ending = session.ending or cast(StopReason, chosen["ending"])

    @abstractmethod
    def search(self, session: Session) -> AsyncGenerator[Progress | SearchResult, None]:
        """Searches for a chain; yields progress from time to time, and the result last."""

    def _commit(self, session: Session, line: dict[str, Any], *, last: bool) -> Span:
        text = line["text"]
        if last and session.state["chosen"]["finished"]:
            text = text.rstrip("\n")
        draft = Draft(line["author"], text, (), final=line["final"], finish="stop")
        return session.commit(draft, scores={line["author"]: line["value"]})


def _choose(session: Session, result: SearchResult) -> None:
    """Stores the chain to be emitted in the state."""
    ending = "eos" if result.finished else result.stopped_by or "length"
    session.state["chosen"] = {
        "lines": [
            {"text": line.text, "author": line.author, "value": line.value, "final": line.final}
            for line in result.lines
        ],
        "finished": result.finished,
        "ending": ending,
        "emitted": 0,
    }
    if result.stopped_by is not None:
        session.warnings.append(f"the search was ended by its limit ({result.stopped_by})")
    if not result.finished:
        session.warnings.append("no whole answer was found; this is the best beginning of one")


def content_order(lines: Sequence[Line], members: Sequence[str]) -> list[tuple[Any, ...]]:
    """A total order over chains: line by line the author's place in ``members``, then the text."""
    return [(place(line.author, members), line.text, line.final) for line in lines]


def joined(lines: Sequence[Line]) -> str:
    return "".join(line.text for line in lines)
