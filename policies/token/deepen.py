"""DeePEn: "Ensemble Learning for Heterogeneous Large Language Models with Deep Parallel
Collaboration" (arXiv 2404.12715)

Each token: every member's distribution is carried into a space relative to the tokens that all
share, the weighted mean is taken there, and a short search finds the distribution over the main
member's vocabulary that comes nearest to it (policies/token/numerics/relative_space.py has the
maths and says what differs from the published code). The main member is ``main``, or the first one.

- Where the main member would end the answer, it ends: as published.
- Greedy: where all members would choose the same token there is nothing to search for; the
  authors report that this spares more than 90% of the searches.
- ``weights`` set to the members' accuracies on held-out questions are the paper's DeePEn-Adapt;
  equal ones its DeePEn-Avg.

Cost: as every token method, and once for each pair of models a table of embeddings that members
send and the coordinator keeps on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from policies.base import Need
from policies.token.fusion.config import TokenConfig
from policies.token.fusion.lookup import candidates
from policies.token.fusion.loop import TokenPolicy
from policies.token.fusion.rows import Fused, Fuser, Row, normalised
from policies.token.numerics.relative_space import RelativeSpace, anchors_of, fuse
from runtime.session.connection import Connection
from runtime.session.session import Session
from runtime.vocab import vector_table
from runtime.vocab.single_flight import SingleFlight
from runtime.vocab.union import END_KEY, Union

SETS: Final = 4
"""Sets of members whose space is kept: requests may ask for fewer members."""


class DeePEnConfig(TokenConfig):
    type: Literal["deepen"] = "deepen"
    main: str | None = None
    """In whose vocabulary the answer is written. Absent: the first member's."""
    k: int = Field(10, ge=1)
    """Tokens of each member's distribution that are carried over."""
    steps: int = Field(5, ge=0)
    """T: steps of the search."""
    lr: float = Field(0.15, gt=0)
    """The search's learning rate; the paper tunes it for each task."""
    anchors: int | None = Field(None, ge=1)
    """Shared tokens that are used; absent: all of them."""
    cache_mb: int = Field(256, ge=1)
    """Relative representations that are remembered."""

    @property
    def vocabulary(self) -> str:
        return self.main or self.members[0]

    @model_validator(mode="after")
    def _known_main(self) -> DeePEnConfig:
        if self.main is not None and self.main not in self.members:
            raise ValueError(f"main: {self.main!r} is not among {', '.join(self.members)}")
        self.check_speaks("main", self.vocabulary)
        return self


class DeePEnFuser(Fuser):
    """The mean in the relative space, brought back to the main member's vocabulary."""

    heavy = True

    def __init__(
        self,
        union: Union,
        weights: Mapping[str, float],
        space: RelativeSpace | None,
        config: DeePEnConfig,
        *,
        greedy: bool,
    ) -> None:
        """Without a ``space`` there is one member, whose distribution it is."""
        super().__init__(union, weights)
        self._space, self._config, self._greedy = space, config, greedy

    def main(self, rows: Mapping[str, Row]) -> str:
        """The main member, or the first that is left."""
        wanted = self._config.vocabulary
        return wanted if wanted in rows else next(iter(rows))

    def missing(self, rows: Mapping[str, Row], scored: int | None = None) -> dict[str, list[int]]:
        if not rows:
            return {}
        main = self.main(rows)
        lacking = np.setdiff1d(self._ids(rows, main, scored), rows[main].ids)
        return {main: lacking.tolist()} if len(lacking) else {}

    def fuse(self, rows: Mapping[str, Row], scored: int | None = None) -> Fused:
        main = self.main(rows)
        own = rows[main]
        ids = self._ids(rows, main, scored)
        told = np.isin(own.ids, ids)
        ids, keys, start = own.ids[told], own.keys[told], own.logprobs[told]
        agreed = len({row.best for row in rows.values()}) == 1
        if self._space is None or own.best == END_KEY or (self._greedy and agreed):
            return _by_key(keys, start)
        best = {name: row.first(self._config.k) for name, row in rows.items()}
        found = fuse(
            self._space,
            main,
            {name: (row.ids, np.exp(row.logprobs)) for name, row in best.items()},
            self.weights(rows),
            ids,
            start,
            steps=self._config.steps,
            lr=self._config.lr,
        )
        return _by_key(keys, found)

    def _ids(self, rows: Mapping[str, Row], main: str, scored: int | None) -> np.ndarray:
        """The main member's tokens that can win: its own best, and what the others' best mean."""
        keys = candidates(rows, self._config.k, scored)
        return np.array(sorted({i for key in keys for i in self.union.ids(main, key)}))


def _by_key(keys: np.ndarray, logprobs: np.ndarray) -> Fused:
    """Ids that say the same count together."""
    found, places = np.unique(keys, return_inverse=True)
    shares = np.exp(logprobs - logprobs.max())
    totals = np.bincount(places, weights=shares, minlength=len(found))
    with np.errstate(divide="ignore"):
        return normalised(found, np.log(totals))


class DeePEn(TokenPolicy[DeePEnConfig]):
    """Relative representations."""

    paper: ClassVar[str] = "2404.12715"
    title: ClassVar[str] = "DeePEn"
    needs: ClassVar[tuple[Need, ...]] = (*TokenPolicy.needs, Need("vectors"))

    def __init__(self, config: DeePEnConfig) -> None:
        super().__init__(config)
        self._spaces: SingleFlight[RelativeSpace] = SingleFlight(limit=SETS)

    async def fuser(self, session: Session, union: Union, weights: Mapping[str, float]) -> Fuser:
        space = self._spaces.kept(tuple(session.live))
        if space is None and len(session.live) > 1:
            tables = await session.each(lambda member: member.prepare(vector_table))
            connections = {name: session.live[name].connection for name in tables}
            space = await self._space(connections, tables)
        query = session.query
        warm = self.config.temperature if query.temperature is None else query.temperature
        return DeePEnFuser(union, weights, space, self.config, greedy=warm == 0)

    async def warm(self, connections: Mapping[str, Connection]) -> None:
        await super().warm(connections)
        tables = {name: await vector_table(c.engine) for name, c in connections.items()}
        await self._space(connections, tables)

    async def _space(
        self, connections: Mapping[str, Connection], tables: Mapping[str, np.ndarray]
    ) -> RelativeSpace | None:
        """The members' common space, made once for each set of members; one alone needs none."""
        names = tuple(connections)
        if len(names) == 1:
            return None
        tokenizers = {name: c.tokenizer for name, c in connections.items()}

        def make() -> RelativeSpace:
            anchors = anchors_of(tokenizers, self.config.anchors)
            return RelativeSpace(tables, anchors, cache_mb=self.config.cache_mb)

        return await self._spaces.get(names, lambda: asyncio.to_thread(make))
