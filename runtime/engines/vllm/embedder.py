"""Hidden states, which vLLM's generating engines do not return, from a separate model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from vllm import PoolingParams

from runtime.concurrency import gather_or_cancel
from runtime.config.engines import TransformersEngine, VllmEngine
from runtime.engines.vllm.client import Client
from runtime.engines.vllm.launch import lora_request, start_pooling
from runtime.errors import EngineFault
from runtime.types.outputs import Tokens


class Embedder(Protocol):
    """The part of the engine protocol for hidden states."""

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray: ...

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray: ...

    async def check(self) -> None: ...

    async def close(self) -> None: ...


def build_embedder(config: VllmEngine, folder: Path) -> Embedder | None:
    """The embedder that ``config.embedding`` names; ``None`` for "none". Raises ``ConfigError``."""
    if config.embedding == "none":
        return None
    if config.embedding == "pooling":
        engine = start_pooling(config, folder)
        return PoolingEmbedder(config.weights, Client(config.weights, engine, lora_request(config)))
    from runtime.engines.transformers.engine import TransformersLM

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

    def __init__(self, model: str, client: Client) -> None:
        self._model, self._client = model, client

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """float32 ``[n, hidden_size]``, after the final norm."""
        states = await gather_or_cancel(*(self._pooled(prompt, "embed") for prompt in prompts))
        return np.stack(states)

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        """float32 ``[len(continuation) + 1, hidden_size]``; vLLM computes the whole context each
        time."""
        states = await self._pooled([*prompt, *continuation], "token_embed")
        return states[len(prompt) - 1 :]

    async def _pooled(self, prompt: Tokens, task: Literal["embed", "token_embed"]) -> np.ndarray:
        params = PoolingParams(task=task, use_activation=False)
        state = None
        async with aclosing(self._client.encode(list(prompt), params)) as outputs:
            async for out in outputs:
                state = out.outputs.data
        if state is None or not state.numel():
            raise EngineFault(f"vLLM ended an embedding of {self._model} without a result")
        return np.asarray(state.float().numpy(), dtype=np.float32)

    async def check(self) -> None:
        """Raises ``EngineFault`` when its processes are gone."""
        await self._client.check()

    async def close(self) -> None:
        await self._client.close()
