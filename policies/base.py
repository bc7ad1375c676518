"""What every method is: one configuration, one class, one docstring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from runtime.config.ensembles import PolicyConfig
from runtime.errors import BadRequest, ConfigError
from runtime.session.connection import Connection
from runtime.session.session import Session
from runtime.types.capabilities import Capability
from runtime.types.spans import Progress, Span, TokenChoice

C = TypeVar("C", bound=PolicyConfig)

Level: TypeAlias = Literal["single", "span", "token", "process", "routing", "selection", "cascade"]
"""Where a method is in the survey's taxonomy."""


@dataclass(frozen=True)
class Need:
    """Something that a method requires of its members.

    A capability is checked when a configuration is read. ``shared_tokenizer``, that token ids stand
    for the same texts in all members, can only be checked once they are up.
    """

    what: Capability | Literal["shared_tokenizer"]
    of: str | None = None
    """The configuration's attribute that names the one member concerned; absent: every member."""
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values of configuration fields under which it is needed; empty: always."""

    def applies(self, config: PolicyConfig) -> bool:
        """Whether an ensemble so configured needs it."""
        return all(getattr(config, name) in values for name, values in self.when.items())

    def members(self, config: PolicyConfig) -> tuple[str, ...]:
        """The members concerned. A name that is no member's, such as an encoder's, is left out."""
        names = config.members if self.of is None else (getattr(config, self.of),)
        return tuple(name for name in names if name in config.members)


class Policy(ABC, Generic[C]):
    """A method. Holds its configuration and nothing of any request."""

    level: ClassVar[str]
    """A ``Level``."""
    paper: ClassVar[str] = ""
    """arXiv id."""
    title: ClassVar[str] = ""
    needs: ClassVar[tuple[Need, ...]]
    """What members must provide."""
    tells_logprobs: ClassVar[bool] = False
    """Whether spans hold their tokens, with the probabilities that they were chosen by."""
    can_score: ClassVar[bool] = False
    """Whether ``score`` is implemented."""
    no_logprobs_reason: ClassVar[str] = (
        "this method chooses between whole pieces of text and gives no token a probability"
    )
    """Why not, where log probabilities or ``score`` are missing."""

    def __init__(self, config: C) -> None:
        self.config = config

    def check(self, connections: Mapping[str, Connection]) -> None:
        """Raises ``ConfigError`` for open members that do not meet ``needs`` together."""
        for need in needs_of(type(self), self.config):
            if need.what == "shared_tokenizer":
                names = [name for name in need.members(self.config) if name in connections]
                for one, other in pairwise(names):
                    check_shared_tokenizer(connections[one], connections[other])

    async def warm(self, connections: Mapping[str, Connection]) -> None:
        """Prepares what the first request would have to wait for. The members are open. A failure
        is ignored, since a request tries again."""

    @abstractmethod
    def answer(self, session: Session) -> AsyncGenerator[Span | Progress, None]:
        """Commits spans to the session and yields them until ``session.ending`` is set.

        A method that searches long before its first span may yield its progress meanwhile;
        ``session.state`` then holds all that another coordinator needs to resume.
        """

    async def score(self, session: Session) -> list[TokenChoice]:
        """The prompt's tokens as the caller sent them, each with the logprob that this method gives
        it after those before it. For methods with ``can_score``. Raises ``BadRequest``."""
        raise BadRequest(self.no_logprobs_reason, "echo", "unsupported_parameter")


class Method(NamedTuple):
    """A row of the table of methods."""

    policy: type[Policy[Any]]
    config: type[PolicyConfig]


def needs_of(policy: type[Policy[Any]], config: PolicyConfig) -> Iterator[Need]:
    """What an ensemble so configured needs."""
    return (need for need in policy.needs if need.applies(config))


def check_shared_tokenizer(a: Connection, b: Connection) -> None:
    """Raises ``ConfigError`` for open members whose token ids do not stand for the same texts."""
    one, other = a.tokenizer, b.tokenizer
    if one is other:
        return
    if one.token_bytes == other.token_bytes and one.special_ids == other.special_ids:
        return
    difference = next(
        (
            f"id {token} stands for {x!r} and {y!r}"
            for token, (x, y) in enumerate(zip(one.token_bytes, other.token_bytes, strict=False))
            if x != y
        ),
        f"they have {len(one.token_bytes)} and {len(other.token_bytes)} tokens"
        if len(one.token_bytes) != len(other.token_bytes)
        else f"ids {sorted(one.special_ids ^ other.special_ids)} are special in one of them only",
    )
    raise ConfigError(
        f"{a.name!r} and {b.name!r} do not share a tokenizer ({difference}), which this method "
        "needs; use models of one family, or gac, unite or deepen, which fuse any"
    )
