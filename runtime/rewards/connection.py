"""One reward model as a coordinator's sessions see it."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Sequence
from typing import Protocol

from runtime.accounts import Accounts
from runtime.retries import persistently
from runtime.rewards.base import Judged, Reasoning
from runtime.rewards.config import RewardModelConfig
from runtime.types import MemberUsage


class RewardChannel(Protocol):
    """The way to a reward model's replicas."""

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[Judged]:
        """What each chain comes to; a fault of one alone stands in its place."""
        ...


class RewardConnection:
    """What all sessions of a coordinator share. Chains that are to be judged in one loop tick
    travel as one message: a message costs as much as many small judgements."""

    def __init__(self, name: str, config: RewardModelConfig, channel: RewardChannel) -> None:
        self.name, self.config = name, config
        self._channel = channel
        self._waiting: list[tuple[Reasoning, asyncio.Future[list[float]]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def score_steps(self, chain: Reasoning) -> list[float]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send, context=contextvars.Context())
        judged: asyncio.Future[list[float]] = loop.create_future()
        self._waiting.append((chain, judged))
        return await judged

    def _send(self) -> None:
        message, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._deliver(message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, message: list[tuple[Reasoning, asyncio.Future[list[float]]]]) -> None:
        outcomes: Sequence[list[float] | Exception]
        try:
            outcomes = await self._channel.score_steps([chain for chain, _ in message])
        except Exception as fault:  # whatever it is, those who wait must hear of it
            outcomes = [fault] * len(message)
        for (_, judged), outcome in zip(message, outcomes, strict=True):
            if judged.done():  # its request has been cancelled
                continue
            if isinstance(outcome, Exception):
                judged.set_exception(outcome)
            else:
                judged.set_result(outcome)


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
                return await connection.score_steps(chain)
            finally:
                waited = time.monotonic() - started
                used = MemberUsage(calls=1, seconds=waited, retries=int(tries > 1))
                self._accounts.book(self.name, used)

        values = await persistently(connection.config, self.name, self._accounts, once)
        cost = len(values) * connection.config.price.input / 1e6
        self._accounts.book(self.name, MemberUsage(cost=cost))
        return values
