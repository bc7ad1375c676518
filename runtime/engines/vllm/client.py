"""Client of one ``AsyncLLM``: requests, typed errors, shutdown."""

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
    """Sends requests to one engine with the current call context; ``lora`` goes with every request.

    Closing a request's generator aborts it. A request aborted by the engine's shutdown ends without
    a result.
    """

    def __init__(self, model: str, engine: Any, lora: Any = None) -> None:
        self._model, self._engine, self._lora = model, engine, lora
        self._count = itertools.count()
        self._running: set[str] = set()
        self.closed = False

    def generate(self, ids: list[int], params: Any, priority: int = 0) -> AsyncGenerator[Any, None]:
        """vLLM's outputs of a generation after ``ids``."""
        return self._outputs(lambda engine: engine.generate, ids, params, priority)

    def encode(self, ids: list[int], params: Any) -> AsyncGenerator[Any, None]:
        """vLLM's outputs of pooling ``ids``."""
        return self._outputs(lambda engine: engine.encode, ids, params, 0)

    async def check(self) -> None:
        """Raises ``EngineFault`` when the engine is closed or its processes are gone."""
        self._check_open()
        with typed_faults(self._model):
            await self._engine.check_health()

    async def close(self) -> None:
        """Aborts running requests and stops the engine's processes."""
        if self.closed:
            return
        self.closed = True
        await self._engine.abort(list(self._running))
        self._engine.shutdown()  # not in a thread: its own task must not run meanwhile
        del self._engine  # or it would try again when the interpreter ends

    def _check_open(self) -> None:
        if self.closed:
            raise EngineFault(f"the engine of {self._model} is closed")

    async def _outputs(
        self, verb: Callable[[Any], Any], ids: list[int], params: Any, priority: int
    ) -> AsyncGenerator[Any, None]:
        self._check_open()
        id_ = f"{current_call_context().request or 'call'}-{next(self._count)}"
        stream = verb(self._engine)(
            tokens_input(ids), params, id_, lora_request=self._lora, priority=priority
        )
        self._running.add(id_)
        try:
            with typed_faults(self._model):
                async with aclosing(stream) as outputs:
                    async for out in outputs:
                        yield out
        finally:
            self._running.discard(id_)
