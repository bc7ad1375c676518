"""GaC: "Breaking the Ceiling of the LLM Community by Treating Token Generation as a Classification
for Ensembling" (arXiv 2406.12585)

For each token, every member's distribution is mapped to the union of the vocabularies, where tokens
with the same bytes are the same; the weighted mean decides. With a ``gate`` the others are called
only where its highest probability is at most ``threshold``.

Cost: one call to each member for each token, fewer when drafted (policies/token/fusion/loop.py).

Deviations: the published code merges byte-level BPE tokens beyond ASCII with other tokens and maps
what it cannot spell to ";"; here every token is its exact bytes, and each member reads them in its
own tokens (runtime/text/pieces.py). The code is greedy only and has one EOS for each model; here
all of a member's EOS are one token, the end, and any temperature works. Control tokens other than
EOS cannot be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from policies.token.fusion.config import TokenConfig
from policies.token.fusion.loop import TokenPolicy
from policies.token.fusion.rows import Fused, Fuser, Row
from runtime.session.session import Session
from runtime.vocab.union import Union

DENSE: Final = 4096


class GaCConfig(TokenConfig):
    type: Literal["gac"] = "gac"
    gate: str | None = None
    """The member that writes alone where it is sure. Default: all members at every token."""
    threshold: float = Field(0.5, gt=0, le=1)
    """The gate is sure above this probability."""

    @model_validator(mode="after")
    def _known_gate(self) -> GaCConfig:
        if self.gate is not None and self.gate not in self.members:
            raise ValueError(f"gate: {self.gate!r} is not among {', '.join(self.members)}")
        if self.gate is not None and self.safe is not None:
            raise ValueError("gate and safe both reduce how often members fuse; leave one out")
        if self.gate is not None:
            self.check_speaks("gate", self.gate)
        return self


def mean(rows: Mapping[str, Row], weights: Mapping[str, float]) -> Fused:
    """The weighted mean of the members' probabilities over the union of their tokens; tokens
    outside a row count as 0."""
    keys = np.concatenate([row.keys for row in rows.values()])
    masses = np.concatenate([weights[n] * np.exp(row.logprobs) for n, row in rows.items()])
    if len(keys) > DENSE:  # whole vocabularies: bincount is faster than sorting
        totals = np.bincount(keys, weights=masses)
        union_keys = np.flatnonzero(totals)
        totals = totals[union_keys]
    else:
        union_keys, places = np.unique(keys, return_inverse=True)
        totals = np.bincount(places, weights=masses, minlength=len(union_keys))
    with np.errstate(divide="ignore"):
        return Fused(union_keys, np.log(totals))


class GaCFuser(Fuser):
    """The mean over the union, with or without a gate."""

    def __init__(
        self,
        union: Union,
        weights: Mapping[str, float],
        gate: str | None = None,
        threshold: float = 1.0,
    ) -> None:
        super().__init__(union, weights)
        self.gate, self._threshold = gate, threshold

    def sure(self, row: Row) -> bool:
        return row.top > self._threshold

    def missing(self, rows: Mapping[str, Row], scored: int | None = None) -> dict[str, list[int]]:
        return (
            {}
            if scored is None
            else self.union.lacking(scored, {n: r.ids for n, r in rows.items()})
        )

    def fuse(self, rows: Mapping[str, Row], scored: int | None = None) -> Fused:
        return mean(rows, self.weights(rows))


class GaC(TokenPolicy[GaCConfig]):
    """The mean over the union of the vocabularies."""

    paper: ClassVar[str] = "2406.12585"
    title: ClassVar[str] = "GaC"

    async def fuser(self, session: Session, union: Union, weights: Mapping[str, float]) -> Fuser:
        gate = self.config.gate if self.config.gate in session.live else None
        return GaCFuser(union, weights, gate, self.config.threshold)
