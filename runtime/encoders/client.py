"""Client of a text encoder, for a coordinator's sessions."""

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
    """Carries batches to an encoder's replicas."""

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, size]``."""
        ...


class EncoderConnection:
    """Shared by all sessions of a coordinator: batches their texts."""

    def __init__(self, name: str, config: EncoderConfig, channel: EncoderChannel) -> None:
        self.name, self.config = name, config
        self._channel = channel
        self._batcher: RequestBatcher[str, np.ndarray] = RequestBatcher(
            self._send, config.replica.most_replicas
        )

    async def encode(self, text: str) -> np.ndarray:
        """float32 ``[size]``."""
        return await self._batcher.submit(text)

    async def _send(self, texts: list[str]) -> list[np.ndarray]:
        return list(await self._channel.encode(texts))


class Encoder:
    """A text encoder in one session: with budget, accounting and retries."""

    def __init__(self, connection: EncoderConnection, ledger: Ledger) -> None:
        self.name, self.identity = connection.name, connection.config.identity
        self._connection, self._ledger = connection, ledger

    async def encode(self, text: str) -> np.ndarray:
        """float32 ``[size]``. Raises ``BudgetSpent`` at a limit and ``MemberFailed`` when every
        attempt failed."""
        connection = self._connection
        vector = await booked(
            connection.config, self.name, self._ledger, lambda _: connection.encode(text)
        )
        self._ledger.book(self.name, MemberUsage(cost=connection.config.price.input / 1e6))
        return vector
