"""A small and a large member that share a tokenizer, for training token-level routing."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from envs.members.event_loop import EventLoopThread
from envs.members.live import TOGETHER, unlimited
from policies.base import check_shared_tokenizer
from runtime.artifacts.token_router import Router
from runtime.calls.retries import with_retries
from runtime.engines.base import Engine
from runtime.errors import ContextOverflow, MemberFailed
from runtime.observability.metrics import Meter
from runtime.observability.recorder import AnswerRecorder
from runtime.session.connection import Connection
from runtime.session.member import Member
from runtime.text.incremental import Context
from runtime.text.stop_strings import cut_at_stop
from runtime.types.outputs import Tokens
from runtime.types.query import Message
from runtime.types.sampling import Deferral, Sampling

T = TypeVar("T")

AHEAD: Final = 16
"""Greedy tokens requested at once: an episode along them needs no further call."""
REMEMBERED: Final = 200_000
"""Most places whose state and next token are cached."""


@dataclass(frozen=True, slots=True)
class Look:
    """The small member at one place."""

    state: np.ndarray
    """float32 ``[width]``: its last-layer state."""
    own: int
    """Its greedy token."""


@dataclass(frozen=True, slots=True)
class TeacherForced:
    """Both members along a given text, before each of its ``n`` tokens."""

    states: np.ndarray
    """The small member's, float32 ``[n, width]``."""
    small: tuple[int, ...]
    """Its greedy tokens."""
    large: tuple[int, ...]
    small_logprobs: tuple[float, ...]
    """Of the given tokens."""
    large_logprobs: tuple[float, ...]


class LivePair:
    """Both members over their connections, for processes without an event loop. Greedy.

    ``connect`` is called in the loop's own thread, once. Calls of one method are in flight
    together. A member's failure, after its configured retries, is ``None`` in its place; what the
    first connection raises is raised.
    """

    def __init__(
        self,
        connect: Callable[[], Mapping[str, Connection]],
        small: str,
        large: str,
        meter: Meter,
        loop: EventLoopThread,
    ) -> None:
        self._connect, self.small, self.large = connect, small, large
        self._report = AnswerRecorder("training", meter)
        self._loop = loop
        self._connections: Mapping[str, Connection] | None = None
        self._ready: dict[str, Connection] = {}  # open
        self._gate: asyncio.Semaphore | None = None
        self._looks: OrderedDict[bytes, Look] = OrderedDict()
        self._next: OrderedDict[bytes, int] = OrderedDict()

    # -- texts -------------------------------------------------------------------------------

    @property
    def reads(self) -> str:
        """The small member's model, whose states a router reads."""
        return self._opened(self.small).spec.model

    @property
    def width(self) -> int:
        return self._opened(self.small).spec.hidden_size

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts at which an answer of theirs ends."""
        names = (self.small, self.large)
        return tuple(dict.fromkeys(stop for n in names for stop in self._opened(n).config.stop))

    def ends(self, ids: Sequence[int]) -> bool:
        """Whether an answer is complete."""
        names = (self.small, self.large)
        if ids[-1] in {i for name in names for i in self._opened(name).spec.eos_ids}:
            return True
        stops = self.stops
        text = self._opened(self.small).tokenizer.decode(ids) if stops else ""
        return cut_at_stop(text, stops) != text

    def prompt(self, question: str, name: str | None = None) -> tuple[int, ...]:
        """The prompt ids of the small member, or of ``name``."""
        tokenizer = self._opened(name or self.small).tokenizer
        return tuple(tokenizer.chat([Message("user", question)]))

    def encode(self, text: str) -> tuple[int, ...]:
        """A whole answer's ids, with the EOS."""
        connection = self._opened(self.small)
        return (*connection.tokenizer.encode(text), connection.spec.eos_ids[0])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer up to where it is served; control tokens are dropped."""
        return cut_at_stop(self._opened(self.small).tokenizer.decode(ids), self.stops)

    # -- calls -------------------------------------------------------------------------------

    def looks(self, questions: Sequence[str], answers: Sequence[Tokens]) -> list[Look | None]:
        """The small member after each answer so far."""
        places = [
            (*self.prompt(question), *answer)
            for question, answer in zip(questions, answers, strict=True)
        ]
        return self._lookup(places, self._looks, self._small_path)

    def large_tokens(self, questions: Sequence[str], answers: Sequence[Tokens]) -> list[int | None]:
        """The large member's greedy token after each answer so far."""
        places = [
            (*self.prompt(question, self.large), *answer)
            for question, answer in zip(questions, answers, strict=True)
        ]
        return self._lookup(places, self._next, self._large_path)

    def _lookup(
        self,
        places: Sequence[tuple[int, ...]],
        known: OrderedDict[bytes, T],
        path: Callable[[tuple[int, ...]], Coroutine[Any, Any, dict[bytes, T]]],
    ) -> list[T | None]:
        """Values of places, from the cache or requested. The least recently used are dropped
        afterwards."""
        keys = {place: _key(place) for place in places}
        new = [place for place, key in keys.items() if key not in known]
        for new_values in self._loop.run(self._all([path(place) for place in new])):
            known.update(new_values or {})
        values = [known.get(keys[place]) for place in places]
        for key in keys.values():
            if key in known:
                known.move_to_end(key)
        while len(known) > REMEMBERED:
            known.popitem(last=False)
        return values

    def teacher_force(
        self, questions: Sequence[str], texts: Sequence[Tokens]
    ) -> list[TeacherForced | None]:
        """Both members along given texts, in one pass each (teacher forcing)."""
        work = [self._teacher_forced(q, list(t)) for q, t in zip(questions, texts, strict=True)]
        return self._loop.run(self._all(work))

    def write_on(
        self,
        questions: Sequence[str],
        answers: Sequence[Tokens],
        router: Router | None,
        threshold: float,
        most: int,
    ) -> list[tuple[int, ...] | None]:
        """Completes answers: by the small member alone, or deferring to the large one by the
        router."""
        work = [
            self._written(q, list(a), router, threshold, most)
            for q, a in zip(questions, answers, strict=True)
        ]
        return self._loop.run(self._all(work))

    # -- in the loop -------------------------------------------------------------------------

    def _opened(self, name: str) -> Connection:
        if name not in self._ready:
            self._ready[name] = self._loop.run(self._connection(name))
        return self._ready[name]

    async def _connection(self, name: str) -> Connection:
        if self._connections is None:
            made = self._connect()
            for member in (self.small, self.large):
                ledger, connection = unlimited(member, self._report), made[member]
                await with_retries(connection.config, member, ledger, connection.open)
            check_shared_tokenizer(made[self.small], made[self.large])
            self._gate = asyncio.Semaphore(TOGETHER)
            self._connections = made
        return self._connections[name]

    async def _member(self, name: str) -> Member:
        connection = await self._connection(name)
        ledger = unlimited(name, self._report)
        return Member(connection, Context(connection.tokenizer, ()), ledger)

    async def _all(self, work: Sequence[Coroutine[Any, Any, T]]) -> list[T | None]:
        try:
            await self._connection(self.small)
        except BaseException:
            for part in work:
                part.close()
            raise

        async def one(part: Coroutine[Any, Any, T]) -> T | None:
            assert self._gate is not None
            async with self._gate:
                try:
                    return await part
                except (MemberFailed, ContextOverflow):
                    return None

        return list(await asyncio.gather(*map(one, work)))

    async def _small_path(self, place: tuple[int, ...]) -> dict[bytes, Look]:
        member = await self._member(self.small)
        reply = await member.write(place, Sampling(max_tokens=AHEAD, stop=member.stops))
        ids = reply.tokens
        states = await member.prepare(lambda engine: engine.states(place, ids[:-1]))
        return {
            _key((*place, *ids[:n])): Look(state, token)
            for n, (state, token) in enumerate(zip(states, ids, strict=True))
        }

    async def _large_path(self, place: tuple[int, ...]) -> dict[bytes, int]:
        member = await self._member(self.large)
        reply = await member.write(place, Sampling(max_tokens=AHEAD, stop=member.stops))
        return {_key((*place, *reply.tokens[:n])): t for n, t in enumerate(reply.tokens)}

    async def _teacher_forced(self, question: str, ids: list[int]) -> TeacherForced:
        prompts = {}
        for name in (self.small, self.large):
            member = await self._member(name)
            tokenizer = member.connection.tokenizer
            prompt = tokenizer.chat([Message("user", question)])
            prompts[name] = (member, prompt)
        small, prompt = prompts[self.small]
        large, other = prompts[self.large]

        async def score(engine: Engine, prompt: list[int]) -> tuple[list[int], tuple[float, ...]]:
            [reply] = await engine.score(prompt, [ids], 1)
            assert reply.top is not None
            best = [_best(row.ids, row.logprobs) for row in reply.top]
            return best, reply.logprobs

        (own, own_logprobs), (its, its_logprobs), states = await asyncio.gather(
            small.prepare(lambda engine: score(engine, prompt)),
            large.prepare(lambda engine: score(engine, other)),
            small.prepare(lambda engine: engine.states(prompt, ids[:-1])),
        )
        return TeacherForced(states, tuple(own), tuple(its), own_logprobs, its_logprobs)

    async def _written(
        self, question: str, ids: list[int], router: Router | None, threshold: float, most: int
    ) -> tuple[int, ...]:
        small = await self._member(self.small)
        large = await self._member(self.large)
        message = [Message("user", question)]
        own = small.connection.tokenizer.chat(message)
        other = large.connection.tokenizer.chat(message)
        eos = {*small.connection.spec.eos_ids, *large.connection.spec.eos_ids}
        stops = (*small.stops, *large.stops)
        defer = None if router is None else Deferral("router", threshold, router.version)
        while len(ids) < most and not (ids and ids[-1] in eos):
            sampling = Sampling(max_tokens=most - len(ids), stop=stops, defer=defer)
            reply = await small.write([*own, *ids], sampling, router)
            ids += reply.tokens
            if reply.finish == "stop" or not (reply.tokens or reply.finish == "deferred"):
                break
            if reply.finish == "deferred" and len(ids) < most:
                reply = await large.write([*other, *ids], Sampling(max_tokens=1))
                ids += reply.tokens
        return tuple(ids)

    def close(self) -> None:
        """Ends the loop's thread; running calls are abandoned."""
        self._loop.close()


def _best(ids: np.ndarray | None, logprobs: np.ndarray) -> int:
    return int(np.argmax(logprobs)) if ids is None else int(ids[0])


def _key(place: Sequence[int]) -> bytes:
    return hashlib.blake2b(np.asarray(place, dtype=np.int32).tobytes(), digest_size=16).digest()
