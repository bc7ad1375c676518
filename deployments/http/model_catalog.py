"""The models behind the endpoint: lookup by name, cards and readiness."""

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
    """``models`` in the order of their listing. Requests use cached cards; listings and readiness
    query the models again."""

    def __init__(self, models: Mapping[str, Ensemble]) -> None:
        self._models = dict(models)
        self._cards: dict[str, dict[str, Any]] = {}
        self._created = int(time.time())
        self._pending_states: asyncio.Future[dict[str, str]] | None = None

    def resolve(self, name: str | None, may_use: Callable[[str], bool] = lambda _: True) -> str:
        """``name`` if it exists; the only model's name when none is given.

        Errors name only models that the caller ``may_use``. Raises ``UnknownModel``, or
        ``BadRequest`` when a name is needed."""
        visible = tuple(filter(may_use, self._models))
        if name is None and len(visible) == 1:
            return visible[0]
        if name is None:
            raise BadRequest(
                f"model is missing; send one of: {', '.join(visible)}",
                "model",
                "missing_required_parameter",
            )
        if name not in self._models:
            raise UnknownModel(name, visible)
        return name

    def __getitem__(self, name: str) -> Ensemble:
        return self._models[name]

    async def card(self, name: str, timeout_s: float) -> dict[str, Any]:
        """Raises ``NotReady`` while the members load."""
        return self._cards.get(name) or await self._fresh(name, timeout_s)

    async def states(self, timeout_s: float) -> dict[str, str]:
        """The state of each model: "ready", or the reason why not. Each is queried for at most
        ``timeout_s`` seconds. Concurrent calls share one query, since anyone may send them and each
        reaches all members."""
        if self._pending_states is None or self._pending_states.done():
            self._pending_states = asyncio.ensure_future(self._query_all(timeout_s))
        return await asyncio.shield(self._pending_states)

    async def _query_all(self, timeout_s: float) -> dict[str, str]:
        return dict(
            zip(
                self._models,
                await asyncio.gather(*(self._state(name, timeout_s) for name in self._models)),
                strict=True,
            )
        )

    async def entries(self, timeout_s: float) -> list[dict[str, Any]]:
        """All models as ``GET /v1/models`` lists them."""
        return await asyncio.gather(*(self.entry(name, timeout_s) for name in self._models))

    async def entry(self, name: str, timeout_s: float) -> dict[str, Any]:
        state = await self._state(name, timeout_s)
        details = self._cards[name] if state == "ready" else {"state": state}
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "orchestrion",
            "ensemble": details,
        }

    async def _state(self, name: str, timeout_s: float) -> str:
        try:
            await self._fresh(name, timeout_s)
        except NotReady as loading:
            return loading.state
        except OrchestrionError as fault:
            return f"not ready: {fault}"
        return "ready"

    async def _fresh(self, name: str, timeout_s: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_s):
                self._cards[name] = await self._models[name].card()
        except TimeoutError:
            raise NotReady(name, f"loading: no reply in {timeout_s:g} s") from None
        except (EngineFault, MemberFailed) as fault:
            raise NotReady(name, f"loading: {fault}") from fault
        return self._cards[name]
