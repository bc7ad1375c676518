"""Configuration shared by methods that fuse next-token distributions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from runtime.config.base import Strict
from runtime.config.ensembles import PolicyConfig


class SafeConfig(Strict):
    """SAFE (arXiv 2510.15346): fuse only where it is safe and the members disagree."""

    draft: int = Field(5, ge=1)
    """n: tokens that the drafter writes before the others verify them."""
    agreement: float = Field(0.5, gt=0, le=1)
    """A drafted token with a mean probability above this is kept without fusing."""


class TokenConfig(PolicyConfig):
    weights: dict[str, float] = {}
    """Each member's weight; 1 for those not named. Normalised to a sum of 1."""
    top_k: int | Literal["all"] = 64
    """Tokens of its distribution that a member returns; the cut is made where the model runs. A
    token outside every member's best cannot be chosen, and the probability that a member gives to a
    token outside its own best counts as 0, unless the method looks it up. "all" returns whole rows:
    exact, and slow for large vocabularies. Vocabularies of up to 4,096 tokens are always returned
    whole."""
    draft: int = Field(12, ge=0)
    """Most tokens that one member drafts ahead of the ensemble; the text stays the same. 0 calls
    all members for every token: the reference."""
    sure: float = Field(0.4, ge=0, lt=1)
    """A draft ends early after a token whose drafter gives it a lower probability, since the
    ensemble may choose another."""
    drafter: str | None = None
    """The member that drafts. Default: the one measured to make the ensemble fastest."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    safe: SafeConfig | None = None
    """Fuse at few places only: cheaper, another text. ``drafter`` drafts, or the first member."""

    @property
    def method(self) -> str:
        return self.type if self.safe is None else f"{self.type}+safe"

    @property
    def vocabulary(self) -> str | None:
        """The member in whose tokens alone the answer is written, if the method has one."""
        return None

    @model_validator(mode="after")
    def _known_members(self) -> TokenConfig:
        named = {"weights": list(self.weights), "drafter": [self.drafter] if self.drafter else []}
        for field, names in named.items():
            for name in names:
                if name not in self.members:
                    raise ValueError(
                        f"{field}: {name!r} is not among the members {', '.join(self.members)}"
                    )
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError("weights: a weight is at least 0")
        if all(self.weights.get(name, 1.0) == 0 for name in self.members):
            raise ValueError("weights: at least one member needs a weight above 0")
        if self.top_k != "all" and self.top_k < max(getattr(self, "k", 1), 1):
            raise ValueError(
                "top_k: must be at least k, so that members return all that they propose, or all"
            )
        if self.drafter is not None:
            self.check_speaks("drafter", self.drafter)
        return self

    def check_speaks(self, field: str, name: str) -> None:
        """Raises ``ValueError`` for a member with a role and weight 0."""
        if self.weights.get(name, 1.0) == 0:
            raise ValueError(f"{field}: {name!r} has weight 0, so it is never called")
