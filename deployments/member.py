"""One LLM as a Serve deployment: an engine and the messages it answers."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.calls import Call, CallRunner, Outcome
from runtime.config import MemberConfig
from runtime.engines import EngineSpec, build_engine


class MemberServer:
    """A replica of one member."""

    def __init__(self, name: str, config: MemberConfig) -> None:
        self.name = name
        self.engine = build_engine(config.engine)
        self.runner = CallRunner(self.engine)

    async def describe(self) -> EngineSpec:
        return self.engine.spec

    async def calls(self, calls: Sequence[Call]) -> list[Outcome]:
        """Runs one message's calls together; see ``runtime.coalesce``."""
        return await self.runner.run(calls)

    async def abort(self, ids: Sequence[str]) -> None:
        self.runner.abort(ids)

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.check()

    async def __del__(self) -> None:
        """Serve awaits this when it stops the replica."""
        if hasattr(self, "engine"):
            await self.engine.close()
