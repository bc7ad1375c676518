"""The process reward model protocol: scores for each step of a chain of reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from runtime.errors import ContextOverflow, OrchestrionError


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A question and the steps written so far."""

    question: str
    steps: tuple[str, ...]
    """Stripped of surrounding white space."""
    since: int = 0
    """Steps from this index on are scored; earlier ones are context only."""


class RewardModel(Protocol):
    """Scores batches of chains.

    A score is the probability, in [0, 1], that the chain leads to the correct answer after the
    step. Raises ``ContextOverflow`` for a chain beyond the context length, ``EngineFault``.
    """

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[list[float]]:
        """One list for each chain, one score for each step from ``since`` on."""
        ...

    async def check(self) -> None:
        """Raises ``EngineFault`` when the model can no longer serve."""
        ...

    async def close(self) -> None: ...


Judged: TypeAlias = list[float] | OrchestrionError


async def judge_all(model: RewardModel, chains: Sequence[Reasoning]) -> list[Judged]:
    """Scores of each chain, or its own ``ContextOverflow``. Raises ``EngineFault`` for all."""
    try:
        return list(await model.score_steps(chains))
    except ContextOverflow as full:
        if len(chains) == 1:
            return [full]
        return [one for chain in chains for one in await judge_all(model, [chain])]
