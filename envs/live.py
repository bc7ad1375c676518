"""Live members behind an environment: whole answers, all calls of a step in flight together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from envs.answers import Ask, Reply
from policies.cascade.transfer import TRANSFER, transfer
from runtime.accounts import Accounts
from runtime.connection import Connection
from runtime.context import Context
from runtime.errors import ContextOverflow, MemberFailed
from runtime.member import Member
from runtime.metrics import Meter
from runtime.report import Report
from runtime.retries import persistently
from runtime.terms import Terms
from runtime.types import Budget, Checkpoint, Message, Sampling


class LiveMembers:
    """Members over their connections, from a process that has no event loop of its own, such as one
    of RLlib's runners.

    ``connect`` is called in the loop's own thread, once. ``prompts`` are knowledge transfer prompts
    of members that have their own. A member's failure, after its configured retries, is a reply
    that costs what its prompt would have; so is a text that its window cannot hold.
    """

    def __init__(
        self,
        connect: Callable[[], Mapping[str, Connection]],
        sampling: Sampling,
        prompts: Mapping[str, str],
        meter: Meter,
    ) -> None:
        self._connect, self._sampling, self._prompts = connect, sampling, prompts
        self._report = Report("training", meter)
        self._connections: Mapping[str, Connection] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="live members", daemon=True
        )
        self._thread.start()

    def ask(self, asked: Sequence[Ask]) -> list[Reply]:
        return asyncio.run_coroutine_threadsafe(self._ask(asked), self._loop).result()

    async def _ask(self, asked: Sequence[Ask]) -> list[Reply]:
        if self._connections is None:
            self._connections = self._connect()
        return list(await asyncio.gather(*map(self._one, asked)))

    async def _one(self, ask: Ask) -> Reply:
        assert self._connections is not None
        connection = self._connections[ask.member]
        accounts = Accounts(Terms(), Budget(), self._report, (ask.member,), Checkpoint())
        started, tokens = time.monotonic(), 0
        try:
            await persistently(connection.config, ask.member, accounts, connection.open)
            text = transfer(ask.question, ask.previous, self._prompts.get(ask.member, TRANSFER))
            prompt = connection.tokenizer.chat([Message("user", text)])
            tokens = len(prompt)
            if tokens >= connection.spec.context_length:
                raise ContextOverflow(ask.member, tokens, connection.spec.context_length)
            member = Member(connection, Context(connection.tokenizer, prompt), accounts)
            draft = await member.draft(self._sampling)
        except (MemberFailed, ContextOverflow) as fault:
            least = tokens * connection.config.price.input / 1e6
            cost = max(accounts.spent().cost, least)
            return Reply(None, cost, time.monotonic() - started, str(fault))
        return Reply(draft.text.strip(), accounts.spent().cost, time.monotonic() - started)

    def close(self) -> None:
        """Ends the loop's thread; calls under way are given up."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
