"""One process reward model as a Serve deployment: chains of all requests are judged in batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ray import serve

from deployments.serving.ray_metrics import RayMeter
from deployments.serving.replica_logging import observe
from runtime.observability.recorder import Batches
from runtime.rewards import (
    Judged,
    Reasoning,
    RewardModelConfig,
    build_reward_model,
    judge_all,
)


class RewardServer:
    """A replica of one reward model."""

    def __init__(self, name: str, config: RewardModelConfig) -> None:
        self.name = name
        observe(f"reward model {name}")
        self._recorder = Batches(name, RayMeter())
        self.model = build_reward_model(config)
        self._run_batch.set_max_batch_size(config.max_batch)
        self._run_batch.set_batch_wait_timeout_s(config.batch_wait_s)
        self._batches = self._chains = 0

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[Judged]:
        """Scores chains, in their order. Concurrent messages share a batch."""
        judged: list[Judged] = await self._run_batch(list(chains))
        return judged

    @serve.batch
    async def _run_batch(self, messages: list[list[Reasoning]]) -> list[list[Judged]]:
        chains = [chain for message in messages for chain in message]
        self._batches += 1
        self._chains += len(chains)
        with self._recorder.batch(len(chains)):
            judged = await judge_all(self.model, chains)
        ends = list(accumulate(map(len, messages)))
        return [
            judged[end - len(message) : end] for message, end in zip(messages, ends, strict=True)
        ]

    async def stats(self) -> dict[str, int]:
        """Numbers of scored chains and of batches."""
        return {"chains": self._chains, "batches": self._batches}

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.model.check()

    async def __del__(self) -> None:
        """Serve awaits this when it stops the replica."""
        if hasattr(self, "model"):
            await self.model.close()
