"""The loop that methods of token-level routing share: a small member writes, and before a token
that it had better not choose it hands over to a large one.

The small member's engine computes its confidence next to the model and stops where that is below
the threshold, so a whole stretch of small tokens is one call and no state leaves the engine. There
the large member, which reads all that it missed in the same call, writes that token and ``ahead``
more in case it is needed again: these are offered to the small member's engine, which takes them in
place of handing over as long as the text is the one that they were written for. The text is that of
the plain loop, a decision and a call for every token, for greedy and for drawn tokens (an engine's
noise hangs on the place), as far as an engine computes the same numbers alone and in a batch.

With one member lost, the other writes on alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import Any, ClassVar, TypeVar

from policies.base import Need, Policy
from policies.token.deferral.config import HandoverConfig
from policies.token.deferral.writer import Writing
from runtime.artifacts.token_router import Router
from runtime.session.connection import Connection
from runtime.session.session import Session
from runtime.types.sampling import Signal
from runtime.types.spans import Span

H = TypeVar("H", bound="HandoverConfig")


class HandoverPolicy(Policy[H]):
    """A method says how the small member's confidence is told."""

    level: ClassVar[str] = "token"
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"), Need("shared_tokenizer"))
    tells_logprobs: ClassVar[bool] = True
    scoreless: ClassVar[str] = (
        "this method decides who writes a token and gives none a probability of its own"
    )

    @property
    @abstractmethod
    def by(self) -> Signal: ...

    async def router(self, small: Connection | None) -> Router | None:
        """The trained router, for methods with one; it must read the states of ``small``."""
        return None

    async def warm(self, connections: Any) -> None:
        await self.router(None)

    async def answer(self, session: Session) -> AsyncGenerator[Span, None]:
        writing = await self._begin(session)
        while session.ending is None:
            for span in await writing.round():
                yield span

    async def _begin(self, session: Session) -> Writing:
        small, _ = self.config.pair
        connections = {name: member.connection for name, member in session.live.items()}
        router = await self.router(connections.get(small))
        return Writing(session, self.config, self.by, router)
