"""One reward model as a coordinator's sessions see it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.accounts import Accounts
from runtime.retries import persistently
from runtime.rewards.base import Reasoning
from runtime.rewards.config import RewardModelConfig
from runtime.types import MemberUsage


class RewardChannel(Protocol):
    """The way to a reward model's replicas, which judge many chains together."""

    async def score_steps(self, chain: Reasoning) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class RewardConnection:
    """What all sessions of a coordinator share."""

    name: str
    config: RewardModelConfig
    channel: RewardChannel


class Judge:
    """A reward model in one session: budgeted, accounted, asked again when it fails."""

    def __init__(self, connection: RewardConnection, accounts: Accounts) -> None:
        self.name = connection.name
        self._connection, self._accounts = connection, accounts

    async def score_steps(self, question: str, steps: Sequence[str], since: int = 0) -> list[float]:
        """The values of the steps from number ``since`` on, in [0, 1].

        Raises ``BudgetSpent`` at a limit and ``MemberFailed`` when every try failed.
        """
        chain = Reasoning(question, tuple(step.strip() for step in steps), since)
        connection, tries = self._connection, 0

        async def once() -> list[float]:
            nonlocal tries
            self._accounts.check()
            tries += 1
            started = time.monotonic()
            try:
                return await connection.channel.score_steps(chain)
            finally:
                waited = time.monotonic() - started
                used = MemberUsage(calls=1, seconds=waited, retries=int(tries > 1))
                self._accounts.book(self.name, used)

        values = await persistently(connection.config, self.name, self._accounts, once)
        cost = len(values) * connection.config.price.input / 1e6
        self._accounts.book(self.name, MemberUsage(cost=cost))
        return values
