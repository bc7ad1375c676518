"""CITER: "Collaborative Inference for Efficient Large Language Model Decoding with Token-Level
Routing" (arXiv 2502.01976)

Before each token a router, a small network over the small member's last state, tells the
probability that the small member's own token is good enough; below ``threshold`` the large member
writes it. ``orchestrion train citer`` collects the preferences and trains the router; here it is
loaded, without RLlib.

Deviations: the published code reads the whole context into the large model again at each of its
tokens, and asks both for one token at a time; here a stretch of small tokens is one call, the large
member's cache keeps what it has read, and hard tokens in a row share its call (handover.py).

Cost: one call to the small member for each stretch of its tokens, one to the large for each place
where it takes over.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from policies.newest import Newest
from policies.token.handover import HandoverConfig, HandoverPolicy
from runtime.artifacts.token_router import ABOUT, Router, load_router
from runtime.errors import ConfigError
from runtime.session.connection import Connection
from runtime.types.sampling import Signal


class RoutedConfig(HandoverConfig):
    router: str
    """Folder of the exported router; a relative one counts from the working folder. A new export
    is taken by the next request."""


class CITERConfig(RoutedConfig):
    type: Literal["citer"] = "citer"
    threshold: float = Field(0.95, ge=0, le=1)
    """tau: the small member writes a token when the router gives it at least this probability of
    being good enough; a request may name its own (``ensemble.threshold``)."""


class Routed(HandoverPolicy[RoutedConfig]):
    """Token-level routing by a trained router."""

    def __init__(self, config: RoutedConfig) -> None:
        super().__init__(config)
        self._newest = Newest(Path(config.router), ABOUT, load_router, self._check)

    @property
    def by(self) -> Signal:
        return "router"

    async def router(self, small: Connection | None) -> Router | None:
        router = await self._newest.current()
        if small is not None and router.reads != small.spec.model:
            raise ConfigError(
                f"the router in {self.config.router} reads the states of {router.reads!r}, and "
                f"{small.name!r} runs {small.spec.model!r}; train one for it"
            )
        if small is not None and router.size != small.spec.hidden_size:
            raise ConfigError(
                f"the router in {self.config.router} reads states of {router.size} values, but "
                f"those of {small.name!r} have {small.spec.hidden_size}; train one for it"
            )
        return router

    def _check(self, router: Router) -> None:
        """Raises ``ConfigError`` for a router of another method: their thresholds differ."""
        if router.method != self.config.type:
            raise ConfigError(
                f"the router in {self.config.router} was trained for {router.method}, not "
                f"{self.config.type}; configure that, or train one"
            )


class CITER(Routed):
    """A router trained on preferences decides who writes each token."""

    paper: ClassVar[str] = "2502.01976"
    title: ClassVar[str] = "CITER"
