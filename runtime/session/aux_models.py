"""The models that a coordinator calls besides its members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runtime.encoders.client import EncoderConnection
from runtime.rewards.client import RewardConnection


@dataclass(frozen=True)
class AuxModels:
    """Models that judge or read, but write nothing."""

    judge: RewardConnection | None = None
    """The process reward model."""
    encoder: EncoderConnection | None = None
    """The text encoder."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in (self.judge, self.encoder) if model is not None)


ALONE: Final = AuxModels()
"""Members only."""
