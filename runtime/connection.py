"""The way to one LLM that all sessions of a coordinator share."""

from __future__ import annotations

import asyncio

from runtime.coalesce import RemoteEngine
from runtime.config import MemberConfig
from runtime.engines.base import Engine, EngineSpec
from runtime.tokens import Tokenizer


class Connection:
    """A member's engine with its tokenizer and terms.

    The tokenizer is rebuilt here from the engine's own description, so a coordinator's node needs
    neither the weights nor the folder they came from.
    """

    def __init__(self, name: str, config: MemberConfig, engine: Engine) -> None:
        self.name = name
        self.config = config
        self.engine = engine
        self._tokenizer: Tokenizer | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Fetches spec and tokenizer once; raises ``EngineFault`` when the member is not up."""
        async with self._opening:
            if self._tokenizer is not None:
                return
            if isinstance(self.engine, RemoteEngine):
                await self.engine.open()
            self._tokenizer = Tokenizer(self.engine.spec.tokenizer)

    @property
    def spec(self) -> EngineSpec:
        return self.engine.spec

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise RuntimeError(f"connection to {self.name!r} was not opened")
        return self._tokenizer
