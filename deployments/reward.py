"""One process reward model as a Serve deployment: chains of all requests are judged in batches."""

from __future__ import annotations

from ray import serve

from runtime.errors import ContextOverflow, OrchestrionError
from runtime.rewards import Reasoning, RewardModelConfig, build_reward_model


class RewardServer:
    """A replica of one reward model."""

    def __init__(self, name: str, config: RewardModelConfig) -> None:
        self.name = name
        self.model = build_reward_model(config)
        self._together.set_max_batch_size(config.max_batch)
        self._together.set_batch_wait_timeout_s(config.batch_wait_s)
        self._batches = self._chains = 0

    async def score_steps(self, chain: Reasoning) -> list[float]:
        """Waits a moment for other chains, then judges them all in one go."""
        outcome = await self._together(chain)
        if isinstance(outcome, OrchestrionError):
            raise outcome
        return outcome

    @serve.batch
    async def _together(self, chains: list[Reasoning]) -> list[list[float] | OrchestrionError]:
        self._batches += 1
        self._chains += len(chains)
        try:
            return list(await self.model.score_steps(chains))
        except ContextOverflow:  # one chain that no window holds must not cost the others
            return [await self._alone(chain) for chain in chains]

    async def _alone(self, chain: Reasoning) -> list[float] | OrchestrionError:
        try:
            [values] = await self.model.score_steps([chain])
        except ContextOverflow as full:
            return full
        return values

    async def stats(self) -> dict[str, int]:
        """Chains judged, and the batches that they came in."""
        return {"chains": self._chains, "batches": self._batches}

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.model.check()

    async def __del__(self) -> None:
        """Serve awaits this when it stops the replica."""
        if hasattr(self, "model"):
            await self.model.close()
