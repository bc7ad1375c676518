"""The models behind the endpoint: finding one by name, and what its card says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from deployments.http.answerer import Ensemble
from runtime.errors import (
    BadRequest,
    EngineFault,
    MemberFailed,
    NotReady,
    OrchestrionError,
    UnknownModel,
)


class ModelCatalog:
    """``models`` in the order of their listing. A card that was read once serves later requests;
    listings and readiness ask again."""

    def __init__(self, models: Mapping[str, Ensemble]) -> None:
        self._models = dict(models)
        self._cards: dict[str, dict[str, Any]] = {}
        self._created = int(time.time())
        self._asking: asyncio.Future[dict[str, str]] | None = None

    def resolve(self, name: str | None, may_ask: Callable[[str], bool] = lambda _: True) -> str:
        """``name`` if it exists; the only model's name when none is given. Only those that the
        caller ``may_ask`` are told."""
        known = tuple(filter(may_ask, self._models))
        if name is None and len(known) == 1:
            return known[0]
        if name is None:
            raise BadRequest(
                f"name a model: {', '.join(known)}", "model", "missing_required_parameter"
            )
        if name not in self._models:
            raise UnknownModel(name, known)
        return name

    def __getitem__(self, name: str) -> Ensemble:
        return self._models[name]

    async def card(self, name: str, patience: float) -> dict[str, Any]:
        """Raises ``NotReady`` while the members load."""
        return self._cards.get(name) or await self._fresh(name, patience)

    async def states(self, patience: float) -> dict[str, str]:
        """Each model's state, "ready" or why not; none is waited for longer than ``patience`` s.
        Whoever asks meanwhile gets the same: anybody may, and every member is asked."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask_all(patience))
        return await asyncio.shield(self._asking)

    async def _ask_all(self, patience: float) -> dict[str, str]:
        return dict(
            zip(
                self._models,
                await asyncio.gather(*(self._state(name, patience) for name in self._models)),
                strict=True,
            )
        )

    async def entries(self, patience: float) -> list[dict[str, Any]]:
        """All models as ``GET /v1/models`` lists them."""
        return await asyncio.gather(*(self.entry(name, patience) for name in self._models))

    async def entry(self, name: str, patience: float) -> dict[str, Any]:
        state = await self._state(name, patience)
        details = self._cards[name] if state == "ready" else {"state": state}
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "orchestrion",
            "ensemble": details,
        }

    async def _state(self, name: str, patience: float) -> str:
        try:
            await self._fresh(name, patience)
        except NotReady as loading:
            return loading.state
        except OrchestrionError as fault:
            return f"not ready: {fault}"
        return "ready"

    async def _fresh(self, name: str, patience: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(patience):
                self._cards[name] = await self._models[name].card()
        except TimeoutError:
            raise NotReady(name, f"loading: no reply in {patience:g} s") from None
        except (EngineFault, MemberFailed) as fault:
            raise NotReady(name, f"loading: {fault}") from fault
        return self._cards[name]
