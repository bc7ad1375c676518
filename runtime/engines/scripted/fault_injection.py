"""Fault injection: engines that wrap another engine and fail or delay calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import numpy as np

from runtime.engines.base import Engine, EngineSpec
from runtime.errors import EngineFault
from runtime.types.outputs import Distribution, Generation, Score, Tokens
from runtime.types.sampling import Sampling


class _Wrapper:
    """Forwards every call to another engine, after ``_enter``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._calls = 0

    @property
    def spec(self) -> EngineSpec:
        return self._engine.spec

    async def _enter(self) -> None:
        self._calls += 1

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        await self._enter()
        return await self._engine.generate(prompt, sampling, score_tail)

    async def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int = 0,
        also: Sequence[Sequence[Tokens]] = (),
    ) -> list[Score]:
        await self._enter()
        return await self._engine.score(prompt, continuations, top_k, also)

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        await self._enter()
        return await self._engine.next_token(prompts, top_k, also)

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        await self._enter()
        return await self._engine.embed(prompts)

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        await self._enter()
        return await self._engine.states(prompt, continuation)

    async def vectors(self, ids: Tokens) -> np.ndarray:
        await self._enter()
        return await self._engine.vectors(ids)

    async def check(self) -> None:
        await self._engine.check()

    async def close(self) -> None:
        await self._engine.close()


class FlakyLM(_Wrapper):
    """Raises ``EngineFault`` on the calls ``fails_at`` and from call ``fails_from`` on, counted
    from 1 over all methods."""

    def __init__(
        self, engine: Engine, fails_at: Iterable[int] = (), fails_from: int | None = None
    ) -> None:
        super().__init__(engine)
        self._fails_at, self._fails_from = frozenset(fails_at), fails_from

    async def _enter(self) -> None:
        await super()._enter()
        dead = self._fails_from is not None and self._calls >= self._fails_from
        if dead or self._calls in self._fails_at:
            raise EngineFault(f"call {self._calls} fails as configured")


class SlowLM(_Wrapper):
    """Sleeps ``seconds`` before each call from number ``slow_from`` on."""

    def __init__(self, engine: Engine, seconds: float = 1.0, slow_from: int = 1) -> None:
        super().__init__(engine)
        self._seconds, self._slow_from = seconds, slow_from

    async def _enter(self) -> None:
        await super()._enter()
        if self._calls >= self._slow_from:
            await asyncio.sleep(self._seconds)
