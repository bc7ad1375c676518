"""Live members behind an environment: whole answers, all calls of a step in flight together."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from envs.members.event_loop import EventLoopThread
from policies.cascade.sequential.transfer_prompt import TRANSFER, transfer
from runtime.call_context import CallContext
from runtime.calls.ledger import Ledger
from runtime.calls.retries import with_retries
from runtime.data.query_log import MemberCall, Reply
from runtime.errors import ContextOverflow, MemberFailed
from runtime.observability.metrics import Meter
from runtime.observability.recorder import AnswerRecorder
from runtime.rng import derive_seed
from runtime.session.connection import Connection
from runtime.session.member import Member
from runtime.text.incremental import Context
from runtime.text.stop_strings import cut_at_stop
from runtime.types.events import Checkpoint
from runtime.types.query import Budget, Message
from runtime.types.sampling import Sampling

TOGETHER: Final = 256
"""Most concurrent calls; more would wait in the members' bounded queues."""


def unlimited(name: str, report: AnswerRecorder) -> Ledger:
    """The ledger of calls outside a request: limited by the configured retries only; waits for busy
    members."""
    ledger = Ledger(CallContext(), Budget(), report, (name,), Checkpoint())
    ledger.begun = True
    return ledger


class LiveMembers:
    """Members over their connections, for processes without an event loop, such as RLlib's runners.

    ``connect`` is called in the loop's own thread, once; ``loop`` is closed with the members.
    ``prompts`` are knowledge transfer prompts of members that have their own. A member's failure,
    after its configured retries, is a reply that costs what its prompt would have; so is a text
    that its window cannot hold.
    """

    def __init__(
        self,
        connect: Callable[[], Mapping[str, Connection]],
        sampling: Sampling,
        prompts: Mapping[str, str],
        meter: Meter,
        loop: EventLoopThread,
    ) -> None:
        self._connect, self._sampling, self._prompts = connect, sampling, prompts
        self._report = AnswerRecorder("training", meter)
        self._connections: Mapping[str, Connection] | None = None
        self._calls = itertools.count()
        self._gate: asyncio.Semaphore | None = None
        self._loop = loop

    def ask(self, calls: Sequence[MemberCall]) -> list[Reply]:
        return self._loop.run(self._ask(calls))

    def embed(self, member: str, texts: Sequence[str]) -> np.ndarray:
        """The member's hidden states after texts, float32 ``[n, hidden size]``."""
        return self._loop.run(self._embed(member, texts))

    async def _embed(self, name: str, texts: Sequence[str]) -> np.ndarray:
        if self._connections is None:
            self._connections = self._connect()
        connection = self._connections[name]
        ledger = unlimited(name, self._report)
        await with_retries(connection.config, name, ledger, connection.open)
        tokenizer, limit = connection.tokenizer, connection.spec.context_length
        member = Member(connection, Context(tokenizer, ()), ledger)
        ids = [tokenizer.encode_prompt(text)[:limit] for text in texts]
        return np.stack(await asyncio.gather(*map(member.embed, ids)))

    async def _ask(self, calls: Sequence[MemberCall]) -> list[Reply]:
        if self._connections is None:
            self._connections = self._connect()
        if self._gate is None:
            self._gate = asyncio.Semaphore(TOGETHER)
        seeds = [derive_seed(self._sampling.seed, next(self._calls)) for _ in calls]
        return list(await asyncio.gather(*map(self._one, calls, seeds)))

    async def _one(self, call: MemberCall, seed: int) -> Reply:
        assert self._gate is not None
        async with self._gate:
            return await self._reply(call, seed)

    async def _reply(self, call: MemberCall, seed: int) -> Reply:
        assert self._connections is not None
        connection = self._connections[call.member]
        ledger = unlimited(call.member, self._report)
        started, tokens = time.monotonic(), 0
        stops = connection.config.stop
        sampling = replace(self._sampling, seed=seed, stop=stops)
        try:
            await with_retries(connection.config, call.member, ledger, connection.open)
            text = transfer(call.question, call.previous, self._prompts.get(call.member, TRANSFER))
            prompt = connection.tokenizer.chat([Message("user", text)])
            tokens = len(prompt)
            if tokens >= connection.spec.context_length:
                raise ContextOverflow(call.member, tokens, connection.spec.context_length)
            member = Member(connection, Context(connection.tokenizer, prompt), ledger)
            draft = await member.draft(sampling)
        except (MemberFailed, ContextOverflow) as fault:
            least = tokens * connection.config.price.input / 1e6
            cost = max(ledger.spent().cost, least)
            return Reply(None, cost, time.monotonic() - started, str(fault))
        text = cut_at_stop(draft.text, stops)
        return Reply(text.strip(), ledger.spent().cost, time.monotonic() - started)

    def close(self) -> None:
        """Ends the loop's thread; running calls are abandoned."""
        self._loop.close()
