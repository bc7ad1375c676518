"""One text encoder as a coordinator's sessions see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from runtime.calls.batcher import RequestBatcher
from runtime.calls.ledger import Ledger
from runtime.calls.retries import booked
from runtime.config.aux_models import EncoderConfig
from runtime.types.events import MemberUsage


class EncoderChannel(Protocol):
    """The way to an encoder's replicas."""

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, size]``."""
        ...


class EncoderConnection:
    """What all sessions of a coordinator share."""

    def __init__(self, name: str, config: EncoderConfig, channel: EncoderChannel) -> None:
        self.name, self.config = name, config
        self._channel = channel
        self._gathering: RequestBatcher[str, np.ndarray] = RequestBatcher(
            self._send, config.replica.most_replicas
        )

    async def encode(self, text: str) -> np.ndarray:
        """float32 ``[size]``."""
        return await self._gathering.ask(text)

    async def _send(self, texts: list[str]) -> list[np.ndarray]:
        return list(await self._channel.encode(texts))


class Encoder:
    """A text encoder in one session: budgeted, accounted, asked again when it fails."""

    def __init__(self, connection: EncoderConnection, ledger: Ledger) -> None:
        self.name, self.identity = connection.name, connection.config.identity
        self._connection, self._accounts = connection, ledger

    async def encode(self, text: str) -> np.ndarray:
        """float32 ``[size]``. Raises ``BudgetSpent`` at a limit and ``MemberFailed`` when every try
        failed."""
        connection = self._connection
        vector = await booked(
            connection.config, self.name, self._accounts, lambda _: connection.encode(text)
        )
        self._accounts.book(self.name, MemberUsage(cost=connection.config.price.input / 1e6))
        return vector
