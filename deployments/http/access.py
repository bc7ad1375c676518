"""Who calls, what they may do, and what it costs them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.http.account import Account
from deployments.http.catalogue import Catalogue
from deployments.http.ensemble import Ensemble
from deployments.http.errors import fault_of
from deployments.http.keyring import Key, Keyring
from deployments.http.limits import part
from deployments.http.reach import check_reach
from runtime.config.access import Allowance
from runtime.config.gateway import GatewayConfig
from runtime.errors import Forbidden, OrchestrionError, QuotaSpent, TooMany, Unauthorised
from runtime.observability.metrics import REFUSED, Meter
from runtime.types.events import Ended, Event, Recalled
from runtime.types.query import Query

ALWAYS_OPEN: Final = ("/health", "/ready")
"""For whatever watches the server; ``/ready`` tells a stranger no names."""


ANY: Final = "any"
"""Refused before its body was read, so that nobody knows which model was meant."""
REASONS: Final[Mapping[type[OrchestrionError], str]] = {
    TooMany: "rate",
    QuotaSpent: "quota",
    Unauthorised: "key",
    Forbidden: "reach",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is; without a name where no keys are needed."""

    name: str | None = None
    allowance: Allowance = Allowance()
    account: Account | None = None
    stranger: bool = False
    """Not to be let in, but for what is always open."""

    def may_ask(self, model: str) -> bool:
        return self.allowance.models is None or model in self.allowance.models

    def choose(self, catalogue: Catalogue, asked: str | None) -> str:
        """The model that is meant. Raises ``Forbidden`` for one that is not for this key."""
        model = catalogue.resolve(asked, self.may_ask)
        if not self.may_ask(model):
            raise Forbidden(f"this key may not use model {model!r}", "model_not_allowed", "model")
        return model


def caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


class Access:
    """ASGI middleware: refuses strangers before their bodies are read, and books what begins."""

    def __init__(
        self, app: ASGIApp, config: GatewayConfig, keys: Keyring | None, meter: Meter
    ) -> None:
        self._app = app
        self._meter = meter
        self._config = config
        self._keys = keys
        self._accounts: defaultdict[str, Account] = defaultdict(Account)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        caller = self._caller(scope)
        booked: Account | None = None
        try:
            self._admit(scope, caller)
            if scope["method"] == "POST" and caller.account is not None:
                caller.account.enter(caller.allowance)
                booked = caller.account
        except OrchestrionError as refusal:
            if path not in ALWAYS_OPEN:
                self._meter.record(REFUSED, 1, ANY, REASONS.get(type(refusal), "key"))
                await fault_of(refusal).response()(scope, receive, send)
                return
            caller = Caller(stranger=True)
        scope.setdefault("state", {})["caller"] = caller
        try:
            await self._app(scope, receive, send)
        finally:
            if booked is not None:
                booked.leave()

    def _caller(self, scope: Scope) -> Caller:
        if self._keys is None:
            return Caller()
        key = self._key(Headers(scope=scope).get("authorization"))
        if key is None:
            return Caller(stranger=True)
        allowance = part(key.allowance, self._config.replicas)
        return Caller(key.name, allowance, self._accounts[key.name])

    def _key(self, authorization: str | None) -> Key | None:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or self._keys is None:
            return None
        return self._keys.find(token.strip().encode())

    def _admit(self, scope: Scope, caller: Caller) -> None:
        headers = Headers(scope=scope)
        if caller.stranger:
            told = "is not one of this server's" if "authorization" in headers else "is missing"
            raise Unauthorised(f"the API key {told}; send it as: Authorization: Bearer KEY")
        server = scope.get("server")
        check_reach(
            self._config.access,
            None if server is None else str(server[0]),
            headers.get("host"),
            headers.get("origin"),
            self._config.allow_origins,
        )


def metered(ensemble: Ensemble, caller: Caller, answers: int) -> Ensemble:
    """The ensemble for a caller, whose account pays for what its members do."""
    return ensemble if caller.account is None else Metered(ensemble, caller, answers)


class Metered:
    """Charges as the answer goes on, so that one that is broken off has been paid up to its last
    span, and gives it no more to spend than the key has left."""

    def __init__(self, ensemble: Ensemble, caller: Caller, answers: int) -> None:
        self._ensemble = ensemble
        self._caller = caller
        self._answers = answers

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        account, allowance = self._caller.account, self._caller.allowance
        assert account is not None
        rest = account.budget(allowance, self._answers)
        query = replace(query, caller=self._caller.name)
        if query.again:  # what is known of it was paid for
            query = replace(query, left=rest)
        else:
            query = replace(query, budget=query.budget.narrow(rest))
        tokens, cost = 0, 0.0
        events = self._ensemble.answer(query)
        try:
            async for event in events:
                all_tokens, all_cost = spent(event)
                if isinstance(event, Recalled):  # paid for when it was written
                    tokens, cost = all_tokens, all_cost
                account.charge(allowance, max(all_tokens - tokens, 0), max(all_cost - cost, 0.0))
                tokens, cost = max(tokens, all_tokens), max(cost, all_cost)
                yield event
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def card(self) -> dict[str, Any]:
        return await self._ensemble.card()

    async def decode(self, ids: Sequence[int]) -> str:
        return await self._ensemble.decode(ids)


def spent(event: Event) -> tuple[int, float]:
    """Tokens and cost of all members since the answer began."""
    if isinstance(event, Ended):
        told, paid = event.summary.get("usage", {}), event.summary.get("cost", {})
        return int(told.get("total_tokens", 0)), float(paid.get("amount", 0.0))
    usages = event.checkpoint.usage.values()
    tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)
    return tokens, sum(usage.cost for usage in usages)
