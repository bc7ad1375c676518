"""What a process reward model is: it judges each step of a chain of reasoning."""

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
    """Without white space around them."""
    since: int = 0
    """Steps from this number on are judged; those before it only stand in the context."""


class RewardModel(Protocol):
    """Judges many chains at once.

    Values are probabilities, in [0, 1], that the chain is on its way to the right answer after each
    judged step. Raises ``ContextOverflow`` for a chain that no window holds, ``EngineFault``.
    """

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[list[float]]:
        """One list for each chain, one value for each judged step."""
        ...

    async def check(self) -> None:
        """Raises ``EngineFault`` when it can judge no more."""
        ...

    async def close(self) -> None: ...


Judged: TypeAlias = list[float] | OrchestrionError


async def judge_all(model: RewardModel, chains: Sequence[Reasoning]) -> list[Judged]:
    """All chains together; where one is beyond the model's window, it alone has failed."""
    try:
        return list(await model.score_steps(chains))
    except ContextOverflow as full:
        if len(chains) == 1:
            return [full]
        return [one for chain in chains for one in await judge_all(model, [chain])]
