"""An ensemble of process reward models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from runtime.rewards.base import Reasoning, RewardModel


class RewardEnsemble:
    """The mean or the minimum of several models' scores of a step (arXiv 2310.02743). A chain must
    fit the context length of every model."""

    def __init__(self, models: Sequence[RewardModel], take: Literal["mean", "min"]) -> None:
        self._models = models
        self._combine = fmean if take == "mean" else min

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[list[float]]:
        scores = await asyncio.gather(*(model.score_steps(chains) for model in self._models))
        return [
            [self._combine(values) for values in zip(*chain, strict=True)]
            for chain in zip(*scores, strict=True)
        ]

    async def check(self) -> None:
        for model in self._models:
            await model.check()

    async def close(self) -> None:
        for model in self._models:
            await model.close()
