"""One text encoder as a Serve deployment: texts of all requests are encoded in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from ray import serve

from deployments.serving.ray_metrics import RayMeter
from deployments.serving.replica_logging import observe
from runtime.encoders import EncoderConfig, build_encoder
from runtime.observability.recorder import Batches


class EncoderServer:
    """A replica of one text encoder."""

    def __init__(self, name: str, config: EncoderConfig) -> None:
        self.name = name
        observe(f"encoder {name}")
        self._recorder = Batches(name, RayMeter())
        self.encoder = build_encoder(config)
        self._run_batch.set_max_batch_size(config.max_batch)
        self._run_batch.set_batch_wait_timeout_s(config.batch_wait_s)

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes texts: shape (texts, dimensions). Concurrent messages share a batch."""
        vectors: np.ndarray = await self._run_batch(list(texts))
        return vectors

    @serve.batch
    async def _run_batch(self, messages: list[list[str]]) -> list[np.ndarray]:
        texts = [text for message in messages for text in message]
        with self._recorder.batch(len(texts)):
            vectors = await asyncio.to_thread(self.encoder.encode, texts)
        return list(np.split(vectors, np.cumsum([len(message) for message in messages])[:-1]))
