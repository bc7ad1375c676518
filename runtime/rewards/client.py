"""Client of a reward model, for a coordinator's sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.calls.batcher import RequestBatcher
from runtime.calls.ledger import Ledger
from runtime.calls.retries import booked
from runtime.config.reward_models import RewardModelConfig
from runtime.rewards.base import Judged, Reasoning
from runtime.types.events import MemberUsage


class RewardChannel(Protocol):
    """Carries batches to a reward model's replicas."""

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[Judged]:
        """The scores of each chain, or its own error in their place."""
        ...


class RewardConnection:
    """Shared by all sessions of a coordinator: batches their chains."""

    def __init__(self, name: str, config: RewardModelConfig, channel: RewardChannel) -> None:
        self.name, self.config = name, config
        self._batcher: RequestBatcher[Reasoning, list[float]] = RequestBatcher(
            channel.score_steps, config.replica.most_replicas
        )

    async def score_steps(self, chain: Reasoning) -> list[float]:
        return await self._batcher.submit(chain)


class Judge:
    """A reward model in one session: with budget, accounting and retries."""

    def __init__(self, connection: RewardConnection, ledger: Ledger) -> None:
        self.name = connection.name
        self._connection, self._ledger = connection, ledger

    async def score_steps(self, question: str, steps: Sequence[str], since: int = 0) -> list[float]:
        """The scores of the steps from index ``since`` on, in [0, 1].

        Raises ``BudgetSpent`` at a limit and ``MemberFailed`` when every attempt failed.
        """
        chain = Reasoning(question, tuple(step.strip() for step in steps), since)
        connection = self._connection
        values = await booked(
            connection.config, self.name, self._ledger, lambda _: connection.score_steps(chain)
        )
        cost = len(values) * connection.config.price.input / 1e6
        self._ledger.book(self.name, MemberUsage(cost=cost))
        return values
