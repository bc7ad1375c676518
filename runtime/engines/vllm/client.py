"""One ``AsyncLLM``: its requests, its faults in our words, and its end."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from vllm.inputs.engine import tokens_input

from runtime.call_context import current_call_context
from runtime.engines.vllm.errors import typed_faults
from runtime.errors import EngineFault


class Client:
    """Asks one engine on the terms of the task that asks; ``lora`` goes with every request.

    A request whose generator is closed is aborted; one that the engine's end breaks off gives a
    last output without an answer.
    """

    def __init__(self, model: str, engine: Any, lora: Any = None) -> None:
        self._model, self._engine, self._lora = model, engine, lora
        self._count = itertools.count()
        self._running: set[str] = set()
        self.closed = False

    def generate(self, ids: list[int], params: Any, priority: int = 0) -> AsyncGenerator[Any, None]:
        """vLLM's outputs for a text to go on from."""
        return self._outputs(lambda engine: engine.generate, ids, params, priority)

    def encode(self, ids: list[int], params: Any) -> AsyncGenerator[Any, None]:
        """vLLM's outputs for a text to pool."""
        return self._outputs(lambda engine: engine.encode, ids, params, 0)

    async def check(self) -> None:
        """Raises ``EngineFault`` when the engine is closed or its processes are gone."""
        self._open()
        with typed_faults(self._model):
            await self._engine.check_health()

    async def close(self) -> None:
        """Breaks off what is under way and stops the engine's processes."""
        if self.closed:
            return
        self.closed = True
        await self._engine.abort(list(self._running))
        self._engine.shutdown()  # not in a thread: its own task must not run meanwhile
        del self._engine  # or it would try again when the interpreter ends

    def _open(self) -> None:
        if self.closed:
            raise EngineFault(f"the engine of {self._model} is closed")

    async def _outputs(
        self, verb: Callable[[Any], Any], ids: list[int], params: Any, priority: int
    ) -> AsyncGenerator[Any, None]:
        self._open()
        id_ = f"{current_call_context().request or 'call'}-{next(self._count)}"
        asked = verb(self._engine)(
            tokens_input(ids), params, id_, lora_request=self._lora, priority=priority
        )
        self._running.add(id_)
        try:
            with typed_faults(self._model):
                async with aclosing(asked) as outputs:
                    async for out in outputs:
                        yield out
        finally:
            self._running.discard(id_)
