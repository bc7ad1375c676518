"""EVA: "Bridging the Gap between Different Vocabularies for LLM Ensemble" (arXiv 2404.09492)

For each token, the softmax of every member's ``top_k`` best tokens is mapped to the pivot member's
vocabulary by a projection learnt from the embeddings of shared tokens
(policies/token/numerics/projection.py has the maths and the deviations from the published code);
members whose best token is not among the ``drop`` best of another are left out; the weighted mean
decides. The pivot is ``pivot``, or the first member.

Cost: one call to each member for each token, fewer when drafted (policies/token/fusion/loop.py);
once for each pair of models a projection, which takes minutes for large vocabularies and is cached
on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.sparse import csr_array

from policies.base import Need
from policies.token.fusion.config import TokenConfig
from policies.token.fusion.loop import TokenPolicy
from policies.token.fusion.rows import Fused, Fuser, Row, leading, normalised
from policies.token.gac import mean
from policies.token.numerics.projection import faithful, project, projection
from runtime.session.connection import Connection
from runtime.session.session import Session
from runtime.vocab import Table, table
from runtime.vocab.single_flight import SingleFlight
from runtime.vocab.union import NO_KEY, Union

SETS: Final = 4
"""Member sets whose projections are cached, since requests may use fewer members. The projections
themselves are cached once for each pair (policies/token/numerics/projection.py)."""


class EVAConfig(TokenConfig):
    type: Literal["eva"] = "eva"
    pivot: str | None = None
    """The member in whose vocabulary the answer is written. Default: the first."""
    top_k: int | Literal["all"] = 320
    """Tokens of each member's distribution that are projected."""
    drop: int = Field(3, ge=0)
    """A member is left out at a token unless its choice is among this many best of another; 0
    includes all."""
    targets: int = Field(10, ge=1)
    """Most pivot tokens that a token maps to."""
    threshold: float = Field(0.1, ge=-2, le=2)
    """Lowest similarity (CSLS) of a token and one it maps to."""
    neighbours: int = Field(1, ge=1)
    """Nearest neighbours in CSLS."""

    @property
    def vocabulary(self) -> str:
        return self.pivot or self.members[0]

    @model_validator(mode="after")
    def _known_pivot(self) -> EVAConfig:
        if self.pivot is not None and self.pivot not in self.members:
            raise ValueError(f"pivot: {self.pivot!r} is not among {', '.join(self.members)}")
        self.check_speaks("pivot", self.vocabulary)
        return self


class EVAFuser(Fuser):
    """The mean in the pivot's vocabulary."""

    heavy = True

    def __init__(
        self,
        union: Union,
        weights: Mapping[str, float],
        pivot: str,
        matrices: Mapping[str, csr_array],
        drop: int,
    ) -> None:
        """``matrices``: member -> its projection into the pivot's vocabulary; none for itself."""
        super().__init__(union, weights)
        self._pivot, self._matrices, self._drop = pivot, matrices, drop

    def missing(self, rows: Mapping[str, Row], scored: int | None = None) -> dict[str, list[int]]:
        if scored is None or self._pivot not in rows:
            return {}
        return self.union.lacking(scored, {self._pivot: rows[self._pivot].ids})

    def fuse(self, rows: Mapping[str, Row], scored: int | None = None) -> Fused:
        carried = {name: self._carried(name, row) for name, row in rows.items()}
        carried = {name: pair for name, pair in carried.items() if len(pair[0])}
        if not carried:  # no token maps to the pivot's vocabulary
            return mean(rows, self.weights(rows))
        count = max(self._drop, 1)
        tops = {n: ids[leading(ids, shares, count)] for n, (ids, shares) in carried.items()}
        included = faithful(tops, self._drop) if self._drop and len(tops) > 1 else list(carried)
        weights = self.weights({name: rows[name] for name in included})
        keys = np.concatenate([self.union.keys(self._pivot, carried[n][0]) for n in included])
        masses = np.concatenate([weights[name] * carried[name][1] for name in included])
        unique, places = np.unique(keys[keys != NO_KEY], return_inverse=True)
        totals = np.bincount(places, weights=masses[keys != NO_KEY], minlength=len(unique))
        with np.errstate(divide="ignore"):
            return normalised(unique, np.log(totals))

    def _carried(self, name: str, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """A member's distribution over the pivot's vocabulary: ids int64, probabilities float64."""
        shares = np.exp(row.logprobs)
        shares = shares / shares.sum()
        if name == self._pivot:
            return row.ids, shares
        ids, carried = project(self._matrices[name], row.ids, shares)
        return np.asarray(ids, dtype=np.int64), carried.astype(np.float64)


class EVA(TokenPolicy[EVAConfig]):
    """A learned projection between vocabularies."""

    paper: ClassVar[str] = "2404.09492"
    title: ClassVar[str] = "EVA"
    needs: ClassVar[tuple[Need, ...]] = (*TokenPolicy.needs, Need("vectors"))

    def __init__(self, config: EVAConfig) -> None:
        super().__init__(config)
        self._sets: SingleFlight[tuple[str, dict[str, csr_array]]] = SingleFlight(limit=SETS)

    async def fuser(self, session: Session, union: Union, weights: Mapping[str, float]) -> Fuser:
        projections = self._sets.kept(tuple(session.live))
        if projections is None:
            tables = await session.each(lambda member: member.prepare(table))
            connections = {name: session.live[name].connection for name in tables}
            projections = await self._matrices(connections, tables)
        pivot, matrices = projections
        return EVAFuser(union, weights, pivot, matrices, self.config.drop)

    async def warm(self, connections: Mapping[str, Connection]) -> None:
        await super().warm(connections)
        tables = {name: await table(c.engine) for name, c in connections.items()}
        await self._matrices(connections, tables)

    async def _matrices(
        self, connections: Mapping[str, Connection], tables: Mapping[str, Table]
    ) -> tuple[str, dict[str, csr_array]]:
        """The pivot and the others' projections, computed once for each set of members."""
        config, wanted = self.config, self.config.vocabulary
        pivot = wanted if wanted in connections else next(iter(connections))

        async def make() -> tuple[str, dict[str, csr_array]]:
            return pivot, {
                name: await projection(
                    connection,
                    tables[name],
                    connections[pivot],
                    tables[pivot],
                    top=config.targets,
                    threshold=config.threshold,
                    neighbours=config.neighbours,
                )
                for name, connection in connections.items()
                if name != pivot
            }

        return await self._sets.get(tuple(connections), make)
