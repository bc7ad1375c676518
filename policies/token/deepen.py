"""DeePEn: "Ensemble Learning for Heterogeneous Large Language Models with Deep Parallel
Collaboration" (arXiv 2404.12715)

For each token, every member's distribution is mapped to a space relative to the tokens that all
share, the weighted mean is taken there, and a short search finds the nearest distribution over the
main member's vocabulary (policies/token/numerics/relative_space.py has the maths and the deviations
from the published code). The main member is ``main``, or the first.

- Where the main member would end the answer, it ends, as published.
- Greedy: where all members would choose the same token no search is made; the authors report that
  this saves more than 90% of the searches.
- ``weights`` set to the members' accuracies on held-out questions are the paper's DeePEn-Adapt;
  equal ones its DeePEn-Avg.

Cost: one call to each member for each token, fewer when drafted (policies/token/fusion/loop.py);
once for each member its embedding table, which the coordinator caches on disk.
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
"""Member sets whose space is cached, since requests may use fewer members."""


class DeePEnConfig(TokenConfig):
    type: Literal["deepen"] = "deepen"
    main: str | None = None
    """The member in whose vocabulary the answer is written. Default: the first."""
    k: int = Field(10, ge=1)
    """Tokens of each member's distribution that are mapped."""
    steps: int = Field(5, ge=0)
    """T: steps of the search."""
    lr: float = Field(0.15, gt=0)
    """Learning rate of the search; the paper tunes it for each task."""
    anchors: int | None = Field(None, ge=1)
    """Shared tokens used as anchors. Default: all."""
    cache_mb: int = Field(256, ge=1)
    """Cache size for relative representations, MiB."""

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
    """The mean in the relative space, mapped back to the main member's vocabulary."""

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
        """``space`` is ``None`` for a single member, whose own distribution is used."""
        super().__init__(union, weights)
        self._space, self._config, self._greedy = space, config, greedy

    def main(self, rows: Mapping[str, Row]) -> str:
        """The main member, or the first live one."""
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
        given = np.isin(own.ids, ids)
        ids, keys, start = own.ids[given], own.keys[given], own.logprobs[given]
        agreed = len({row.best for row in rows.values()}) == 1
        if self._space is None or own.best == END_KEY or (self._greedy and agreed):
            return _by_key(keys, start)
        best = {name: row.first(self._config.k) for name, row in rows.items()}
        logprobs = fuse(
            self._space,
            main,
            {name: (row.ids, np.exp(row.logprobs)) for name, row in best.items()},
            self.weights(rows),
            ids,
            start,
            steps=self._config.steps,
            lr=self._config.lr,
        )
        return _by_key(keys, logprobs)

    def _ids(self, rows: Mapping[str, Row], main: str, scored: int | None) -> np.ndarray:
        """int64: the main member's candidate ids: its own best, and those with the bytes of the
        others' best."""
        keys = candidates(rows, self._config.k, scored)
        return np.array(sorted({i for key in keys for i in self.union.ids(main, key)}))


def _by_key(keys: np.ndarray, logprobs: np.ndarray) -> Fused:
    """Sums over ids with the same key."""
    unique, places = np.unique(keys, return_inverse=True)
    shares = np.exp(logprobs - logprobs.max())
    totals = np.bincount(places, weights=shares, minlength=len(unique))
    with np.errstate(divide="ignore"):
        return normalised(unique, np.log(totals))


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
        """The members' common space, computed once for each set; ``None`` for one member."""
        names = tuple(connections)
        if len(names) == 1:
            return None
        tokenizers = {name: c.tokenizer for name, c in connections.items()}

        def make() -> RelativeSpace:
            anchors = anchors_of(tokenizers, self.config.anchors)
            return RelativeSpace(tables, anchors, cache_mb=self.config.cache_mb)

        return await self._spaces.get(names, lambda: asyncio.to_thread(make))
