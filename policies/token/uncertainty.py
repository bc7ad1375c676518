"""Deferral without training: the baselines of token-level routing.

``by: entropy`` defers where the small member's distribution is flat, ``margin`` where its two best
tokens are about equally probable, ``random`` at random places: then ``threshold`` is the share of
tokens that the large member writes.

Cost: as CITER's, without a router.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from policies.base import Need
from policies.token.deferral.base import DeferralPolicy
from policies.token.deferral.config import DeferralConfig
from runtime.types.sampling import Signal


class UncertaintyConfig(DeferralConfig):
    type: Literal["uncertainty"] = "uncertainty"
    by: Literal["entropy", "margin", "random"] = "entropy"
    """Confidence, in [0, 1]: 1 minus the entropy over that of a uniform choice, or the difference
    of the two highest probabilities, or a random number."""

    @property
    def method(self) -> str:
        return f"{self.type}-{self.by}"


class Uncertainty(DeferralPolicy[UncertaintyConfig]):
    """The small member defers where it is unsure."""

    title: ClassVar[str] = "Deferral by uncertainty"
    needs: ClassVar[tuple[Need, ...]] = (
        *DeferralPolicy.needs,
        Need("next_token", of="small_member", when={"by": ("entropy", "margin")}),
    )

    @property
    def by(self) -> Signal:
        return self.config.by
