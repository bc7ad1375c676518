"""States of last tokens, which vLLM's writing engines do not give, from a model at their side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from vllm import PoolingParams
from vllm.inputs.engine import tokens_input

from runtime.config import TransformersEngine, VllmEngine
from runtime.engines.vllm_faults import typed_faults
from runtime.engines.vllm_start import lora_request, start_pooling
from runtime.errors import EngineFault
from runtime.tasks import together
from runtime.types import Tokens


class Embedder(Protocol):
    """The part of an engine that ``embed`` needs."""

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray: ...

    async def check(self) -> None: ...

    async def close(self) -> None: ...


def build_embedder(config: VllmEngine, folder: Path) -> Embedder | None:
    """As ``config.embedding`` says; ``None`` without one."""
    if config.embedding == "none":
        return None
    if config.embedding == "pooling":
        return PoolingEmbedder(config.weights, start_pooling(config, folder), lora_request(config))
    from runtime.engines.transformers import TransformersLM

    return TransformersLM(
        TransformersEngine(
            weights=str(folder),
            dtype="float32" if config.dtype == "float32" else "bfloat16",
            max_context=config.max_model_len,
            threads=config.threads,
        )
    )


class PoolingEmbedder:
    """A second vLLM engine over the same weights, with last-token pooling and no normalisation."""

    def __init__(self, model: str, engine: Any, lora: Any = None) -> None:
        self._model, self._engine, self._lora = model, engine, lora
        self._count = itertools.count()
        self._running: set[str] = set()

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """float32 ``[n, hidden_size]``, after the final norm."""
        states = await together(*(self._state(prompt) for prompt in prompts))
        return np.stack(states)

    async def _state(self, prompt: Tokens) -> np.ndarray:
        params = PoolingParams(task="embed", use_activation=False)
        id_ = f"embed-{next(self._count)}"
        asked = self._engine.encode(
            tokens_input(list(prompt)), params, id_, lora_request=self._lora
        )
        state = None
        self._running.add(id_)
        try:
            with typed_faults(self._model):
                async with aclosing(asked) as outputs:
                    async for out in outputs:
                        state = out.outputs.data
        finally:
            self._running.discard(id_)
        if state is None or not state.numel():  # aborted
            raise EngineFault(f"vLLM broke off an embedding of {self._model}")
        return np.asarray(state.float().numpy(), dtype=np.float32)

    async def check(self) -> None:
        """Raises ``EngineFault`` when its processes are gone."""
        with typed_faults(self._model):
            await self._engine.check_health()

    async def close(self) -> None:
        await self._engine.abort(list(self._running))
        self._engine.shutdown()
        del self._engine
