"""What methods that search for a chain of steps share: how a found chain becomes the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

from policies.base import Need, Policy
from policies.process.config import LIKELIHOOD, ProcessConfig
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
class Found:
    """What a search has come to."""

    lines: tuple[Line, ...]
    finished: bool
    """The last line ends an answer; otherwise this is a beginning, the best there is."""
    stopped_by: str | None = None
    """The limit that ended the search early, if one did."""


class ProcessPolicy(Policy[P]):
    """search -> the best chain -> its steps as spans, each by its author.

    The search keeps what it has in ``session.state`` whenever it tells its progress, and so does
    the telling of the chain: another coordinator goes on from either.
    """

    level: ClassVar[str] = "process"
    needs: ClassVar[tuple[Need, ...]] = (
        Need("generate"),
        Need("score", when={"reward": (LIKELIHOOD,)}),
    )
    scoreless: ClassVar[str] = "this method chooses between whole lines and gives no token a score"

    async def answer(self, session: Session) -> AsyncGenerator[Span | Progress, None]:
        state = session.state
        if "chosen" not in state:
            # Closed at once when the caller leaves: nobody is to be asked for it any more.
            async with aclosing(self.search(session)) as search:
                async for told in search:
                    if isinstance(told, Progress):
                        yield told
                    else:
                        _choose(session, told)
        chosen: dict[str, Any] = state["chosen"]
        while session.ending is None and chosen["told"] < len(chosen["lines"]):
            line = chosen["lines"][chosen["told"]]
            chosen["told"] += 1
            yield self._commit(session, line, last=chosen["told"] == len(chosen["lines"]))
        session.ending = session.ending or cast(StopReason, chosen["ending"])

    @abstractmethod
    def search(self, session: Session) -> AsyncGenerator[Progress | Found, None]:
        """Looks for a chain; tells its progress now and then, and what it has found last."""

    def _commit(self, session: Session, line: dict[str, Any], *, last: bool) -> Span:
        text = line["text"]
        if last and session.state["chosen"]["finished"]:
            text = text.rstrip("\n")
        draft = Draft(line["author"], text, (), final=line["final"], finish="stop")
        return session.commit(draft, scores={line["author"]: line["value"]})


def _choose(session: Session, found: Found) -> None:
    """Puts the chain that is to be told into the state."""
    ending = "eos" if found.finished else found.stopped_by or "length"
    session.state["chosen"] = {
        "lines": [
            {"text": line.text, "author": line.author, "value": line.value, "final": line.final}
            for line in found.lines
        ],
        "finished": found.finished,
        "ending": ending,
        "told": 0,
    }
    if found.stopped_by is not None:
        session.warnings.append(f"the search was ended by its limit ({found.stopped_by})")
    if not found.finished:
        session.warnings.append("no whole answer was found; this is the best beginning of one")


def joined(lines: Sequence[Line]) -> str:
    return "".join(line.text for line in lines)
