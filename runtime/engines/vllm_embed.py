"""States of last tokens, which vLLM's writing engines do not give, from a model at their side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from vllm import PoolingParams
from vllm.inputs.engine import tokens_input

from runtime.config import TransformersEngine, VllmEngine
from runtime.engines.vllm_faults import typed_faults
from runtime.engines.vllm_start import start_pooling
from runtime.tasks import together
from runtime.types import Tokens


class Embedder(Protocol):
    """The part of an engine that ``embed`` needs."""

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray: ...

    async def close(self) -> None: ...


def build_embedder(config: VllmEngine, folder: Path) -> Embedder | None:
    """As ``config.embedding`` says; ``None`` without one."""
    if config.embedding == "none":
        return None
    if config.embedding == "pooling":
        return PoolingEmbedder(config.weights, start_pooling(config, folder))
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

    def __init__(self, model: str, engine: Any) -> None:
        self._model, self._engine = model, engine
        self._count = itertools.count()

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """float32 ``[n, hidden_size]``, after the final norm."""
        states = await together(*(self._state(prompt) for prompt in prompts))
        return np.stack(states)

    async def _state(self, prompt: Tokens) -> np.ndarray:
        params = PoolingParams(task="embed", use_activation=False)
        state = None
        with typed_faults(self._model):
            async for out in self._engine.encode(
                tokens_input(list(prompt)), params, f"embed-{next(self._count)}"
            ):
                state = out.outputs.data
        assert state is not None
        return np.asarray(state.float().numpy(), dtype=np.float32)

    async def close(self) -> None:
        self._engine.shutdown()
        del self._engine
