"""One reward model as a coordinator's sessions see it."""

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
    """The way to a reward model's replicas."""

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[Judged]:
        """What each chain comes to; a fault of one alone stands in its place."""
        ...


class RewardConnection:
    """What all sessions of a coordinator share."""

    def __init__(self, name: str, config: RewardModelConfig, channel: RewardChannel) -> None:
        self.name, self.config = name, config
        self._gathering: RequestBatcher[Reasoning, list[float]] = RequestBatcher(
            channel.score_steps, config.replica.most_replicas
        )

    async def score_steps(self, chain: Reasoning) -> list[float]:
        return await self._gathering.ask(chain)


class Judge:
    """A reward model in one session: budgeted, accounted, asked again when it fails."""

    def __init__(self, connection: RewardConnection, ledger: Ledger) -> None:
        self.name = connection.name
        self._connection, self._accounts = connection, ledger

    async def score_steps(self, question: str, steps: Sequence[str], since: int = 0) -> list[float]:
        """The values of the steps from number ``since`` on, in [0, 1].

        Raises ``BudgetSpent`` at a limit and ``MemberFailed`` when every try failed.
        """
        chain = Reasoning(question, tuple(step.strip() for step in steps), since)
        connection = self._connection
        values = await booked(
            connection.config, self.name, self._accounts, lambda _: connection.score_steps(chain)
        )
        cost = len(values) * connection.config.price.input / 1e6
        self._accounts.book(self.name, MemberUsage(cost=cost))
        return values
