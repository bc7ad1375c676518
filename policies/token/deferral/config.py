"""Configuration shared by methods that defer tokens to a larger model."""

from __future__ import annotations

from pydantic import Field, model_validator

from runtime.config.ensembles import PolicyConfig


class DeferralConfig(PolicyConfig):
    """Two members, the small one first unless ``small`` or ``large`` is set."""

    small: str | None = None
    """The member that writes. Default: the first."""
    large: str | None = None
    """The member that is deferred to. Default: the other one."""
    threshold: float = Field(0.5, ge=0, le=1)
    """The small member writes a token when its confidence is at least this; a request may set its
    own (``ensemble.threshold``)."""
    ahead: int = Field(5, ge=0)
    """Tokens that the large member writes beyond the deferred one, up to the end of its line, since
    hard tokens cluster and lines begin with easy ones. The text stays the same; higher values save
    calls, and waste tokens where the small member continues by itself."""
    chunk_tokens: int = Field(32, ge=1)
    """Most tokens of one call to the small member; smaller streams more finely."""
    plain: bool = False
    """The reference: a decision outside the engine for every token, a call for the small member's
    token and one for its state. The same text."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _two_members(self) -> DeferralConfig:
        if len(self.members) != 2:
            raise ValueError(
                f"members: needs a small and a large one, got {len(self.members)}; define one "
                "ensemble for each pair"
            )
        for field, name in (("small", self.small), ("large", self.large)):
            if name is not None and name not in self.members:
                raise ValueError(f"{field}: {name!r} is not among members {list(self.members)}")
        if self.small is not None and self.small == self.large:
            raise ValueError(f"small and large are both {self.small!r}; name two members")
        return self

    @property
    def pair(self) -> tuple[str, str]:
        """(small, large)"""
        first, second = self.members
        if self.small == second or self.large == first:
            return second, first
        return first, second

    @property
    def small_member(self) -> str:
        """The one that writes."""
        return self.pair[0]

    @property
    def takes_threshold(self) -> bool:
        return True
