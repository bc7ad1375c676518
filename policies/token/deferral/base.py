"""The loop of token-level routing: a small member writes and defers single tokens to a large one.

The small member's engine computes its confidence next to the model and stops where that is below
the threshold, so a run of small tokens is one call and no state leaves the engine. Then the large
member, which reads all new text in the same call, writes that token and ``ahead`` more: these are
offered to the small member's engine, which takes them instead of deferring while the text is the
one that they were written for. The text equals that of the plain loop (a decision and a call for
every token), for greedy and for sampled tokens (an engine's noise depends on the place), as far as
an engine computes the same numbers alone and in a batch.

When one member is dropped, the other continues alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import Any, ClassVar, TypeVar

from policies.base import Need, Policy
from policies.token.deferral.config import DeferralConfig
from policies.token.deferral.writer import Writing
from runtime.artifacts.token_router import Router
from runtime.session.connection import Connection
from runtime.session.session import Session
from runtime.types.sampling import Signal
from runtime.types.spans import Span

H = TypeVar("H", bound="DeferralConfig")


class DeferralPolicy(Policy[H]):
    """Methods define the signal (``by``) of the small member's confidence."""

    level: ClassVar[str] = "token"
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"), Need("shared_tokenizer"))
    tells_logprobs: ClassVar[bool] = True
    no_logprobs_reason: ClassVar[str] = (
        "this method decides who writes a token and gives none a probability of its own"
    )

    @property
    @abstractmethod
    def by(self) -> Signal: ...

    async def router(self, small: Connection | None) -> Router | None:
        """The trained router, for methods with one. Raises ``ConfigError`` when it reads the states
        of another model than ``small``."""
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
