"""The base of deferral methods whose confidence a trained token router computes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from policies.base import Need
from policies.token.deferral.base import DeferralPolicy
from policies.token.deferral.config import DeferralConfig
from runtime.artifacts.hot_reload import HotReloaded
from runtime.artifacts.token_router import ABOUT, Router, load_router
from runtime.errors import ConfigError
from runtime.session.connection import Connection
from runtime.types.sampling import Signal


class RoutedConfig(DeferralConfig):
    router: str
    """Folder of the exported router, relative to the working folder. The next request loads a new
    export."""


class Routed(DeferralPolicy[RoutedConfig]):
    """Token-level routing by a trained router."""

    needs: ClassVar[tuple[Need, ...]] = (*DeferralPolicy.needs, Need("states", of="small_member"))

    def __init__(self, config: RoutedConfig) -> None:
        super().__init__(config)
        self._newest = HotReloaded(Path(config.router), ABOUT, load_router, self._check)

    @property
    def by(self) -> Signal:
        return "router"

    async def router(self, small: Connection | None) -> Router | None:
        router = await self._newest.current()
        if small is not None and router.reads != small.spec.model:
            raise ConfigError(
                f"the router in {self.config.router} reads the states of {router.reads!r}, and "
                f"{small.name!r} runs {small.spec.model!r}; train one for that model"
            )
        if small is not None and router.size != small.spec.hidden_size:
            raise ConfigError(
                f"the router in {self.config.router} reads states of {router.size} values, but "
                f"those of {small.name!r} have {small.spec.hidden_size}; train one for that model"
            )
        return router

    def _check(self, router: Router) -> None:
        """Raises ``ConfigError`` for a router trained for another method."""
        if router.method != self.config.type:
            raise ConfigError(
                f"the router in {self.config.router} was trained for {router.method}, not "
                f"{self.config.type}; set type: {router.method}, or train one"
            )
