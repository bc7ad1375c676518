"""Configuration that methods share which hand tokens over to a larger model."""

from __future__ import annotations

from pydantic import Field, model_validator

from runtime.config.ensembles import PolicyConfig


class HandoverConfig(PolicyConfig):
    """Two members: the small one first, unless ``small`` and ``large`` say so."""

    small: str | None = None
    """Who writes. Absent: the first member."""
    large: str | None = None
    """Who is handed over to. Absent: the other one."""
    threshold: float = Field(0.5, ge=0, le=1)
    """The small member writes a token when its confidence is at least this; a request may name its
    own (``ensemble.threshold``)."""
    ahead: int = Field(5, ge=0)
    """Tokens that the large member writes beyond the one that it is asked for, as far as its line
    goes: what is hard comes in a row, and a new line begins with what is easy. The text stays the
    same; more save calls, and are wasted where the small member goes on by itself."""
    chunk_tokens: int = Field(32, ge=1)
    """Tokens that the small member writes in one call at most; smaller streams more finely."""
    plain: bool = False
    """The reference: a decision outside the engine for every token, a call for the small member's
    token and one for its state. The same text."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _two_members(self) -> HandoverConfig:
        if len(self.members) != 2:
            raise ValueError(
                f"members: a small and a large one, not {len(self.members)}; make two ensembles"
            )
        for field, name in (("small", self.small), ("large", self.large)):
            if name is not None and name not in self.members:
                raise ValueError(f"{field}: {name!r} is not among members {list(self.members)}")
        if self.small is not None and self.small == self.large:
            raise ValueError(f"small and large are both {self.small!r}; name two members")
        return self

    @property
    def pair(self) -> tuple[str, str]:
        """Small and large."""
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
