"""Authentication of requests, and the allowance of the caller."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.http.auth.key_usage import KeyUsage
from deployments.http.auth.keys import Key, KeyStore
from deployments.http.auth.network import check_network_access
from deployments.http.auth.quotas import part
from deployments.http.errors import fault_of
from deployments.http.model_catalog import ModelCatalog
from runtime.config.access import Allowance
from runtime.config.gateway import GatewayConfig
from runtime.errors import Forbidden, OrchestrionError, QuotaSpent, TooMany, Unauthorised
from runtime.observability.metrics import REFUSED, Meter

ALWAYS_OPEN: Final = ("/health", "/ready")
"""Routes for health checks; ``/ready`` names no models without a key."""


ANY: Final = "any"
"""Model label of a request that was refused before its body was read."""
REASONS: Final[Mapping[type[OrchestrionError], str]] = {
    TooMany: "rate",
    QuotaSpent: "quota",
    Unauthorised: "key",
    Forbidden: "reach",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The API key of a request; ``name`` is ``None`` where no keys are needed."""

    name: str | None = None
    allowance: Allowance = Allowance()
    account: KeyUsage | None = None
    unauthenticated: bool = False
    """Only admitted to ``ALWAYS_OPEN``."""

    def may_use(self, model: str) -> bool:
        return self.allowance.models is None or model in self.allowance.models

    def choose(self, model_catalog: ModelCatalog, requested: str | None) -> str:
        """The model of the request. Raises ``Forbidden`` if this key may not use it."""
        model = model_catalog.resolve(requested, self.may_use)
        if not self.may_use(model):
            raise Forbidden(f"this key may not use model {model!r}", "model_not_allowed", "model")
        return model


def caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


class AccessMiddleware:
    """ASGI middleware: refuses unauthenticated requests before their bodies are read, and counts
    admitted ones."""

    def __init__(
        self, app: ASGIApp, config: GatewayConfig, keys: KeyStore | None, meter: Meter
    ) -> None:
        self._app = app
        self._meter = meter
        self._config = config
        self._keys = keys
        self._accounts: defaultdict[str, KeyUsage] = defaultdict(KeyUsage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        caller = self._caller(scope)
        booked: KeyUsage | None = None
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
            caller = Caller(unauthenticated=True)
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
            return Caller(unauthenticated=True)
        allowance = part(key.allowance, self._config.replicas)
        return Caller(key.name, allowance, self._accounts[key.name])

    def _key(self, authorization: str | None) -> Key | None:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or self._keys is None:
            return None
        return self._keys.find(token.strip().encode())

    def _admit(self, scope: Scope, caller: Caller) -> None:
        headers = Headers(scope=scope)
        if caller.unauthenticated:
            state = "is not one of this server's" if "authorization" in headers else "is missing"
            raise Unauthorised(f"the API key {state}; send it as: Authorization: Bearer KEY")
        server = scope.get("server")
        check_network_access(
            self._config.access,
            None if server is None else str(server[0]),
            headers.get("host"),
            headers.get("origin"),
            self._config.allow_origins,
        )
