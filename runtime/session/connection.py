"""The connection to one LLM that all sessions of a coordinator share."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from runtime.calls.remote_engine import RemoteEngine
from runtime.config.members import MemberConfig
from runtime.engines.base import Engine, EngineSpec
from runtime.tokenization.tokenizer import Tokenizer, TokenizerDefinition


class Connection:
    """A member's engine with its tokenizer and configuration.

    The tokenizer is rebuilt here from the engine's own description, so a coordinator's node needs
    neither the weights nor the folder they came from.
    """

    def __init__(self, name: str, config: MemberConfig, engine: Engine) -> None:
        self.name = name
        self.config = config
        self.engine = engine
        self._tokenizer: Tokenizer | None = None
        self._opening = asyncio.Lock()

    async def describe(self) -> EngineSpec:
        """The engine's description; raises ``EngineFault`` when the member is not up."""
        if isinstance(self.engine, RemoteEngine):
            await self.engine.open()
        return self.engine.spec

    async def open(self) -> None:
        """Makes ``spec`` and ``tokenizer`` ready; cheap when they are."""
        if self._tokenizer is None:
            # Outside the lock: some callers wait for an unavailable member, others do not.
            definition = (await self.describe()).tokenizer
            async with self._opening:
                if self._tokenizer is None:
                    self._tokenizer = await asyncio.to_thread(_tokenizer, definition)

    @property
    def spec(self) -> EngineSpec:
        return self.engine.spec

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise RuntimeError(f"connection to {self.name!r} was not opened")
        return self._tokenizer


@lru_cache(maxsize=64)
def _tokenizer(definition: TokenizerDefinition) -> Tokenizer:
    """Shared by all connections: a large vocabulary takes seconds and half a gigabyte to build."""
    return Tokenizer(definition)
