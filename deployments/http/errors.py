"""Maps typed errors to HTTP: status, OpenAI error body, headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from deployments.http.openai.json_bytes import encode
from deployments.http.openai.resume import PARAM
from runtime.errors import (
    BadRequest,
    ConfigError,
    ContextOverflow,
    Diverged,
    Forbidden,
    MemberFailed,
    NotReady,
    OrchestrionError,
    Overloaded,
    QuorumLost,
    QuotaSpent,
    TooMany,
    Unauthorised,
    UnknownModel,
    Unsupported,
    WeightsError,
)

MAX_RETRY_S = 120
"""openai-python ignores a longer retry-after."""
LOADING_RETRY_S = 5
ROUTE_CODES = {
    404: "route_not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
}
MAX_MESSAGE = 2000
"""Characters: a message may quote what the client sent, which may be a whole body."""
NO_RETRY = {"x-should-retry": "false"}
BEARER = {"www-authenticate": 'Bearer realm="orchestrion"'}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as it is sent to the client."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        param = None if self.param is None else _clipped(self.param)
        error = {"message": _clipped(self.message), "type": self.type, "param": param}
        error["code"] = self.code
        return {"error": {**error, **self.details}}

    def response(self) -> Response:
        return Response(encode(self.body()), self.status, self.headers, "application/json")


def fault_of(error: Exception) -> Fault:
    """The HTTP form of ``error``. An untyped error becomes a 500 without details."""
    # Ray re-raises a remote fault as a subclass whose text is the whole remote traceback.
    cause = getattr(error, "cause", None)
    match cause if isinstance(cause, OrchestrionError) else error:
        case BadRequest() as bad:
            return _invalid(400, bad.code or "invalid_value", str(bad), bad.param)
        case ContextOverflow() as overflow:
            return _invalid(400, "context_length_exceeded", str(overflow))
        case UnknownModel() as unknown:
            return _invalid(404, "model_not_found", str(unknown), "model")
        case Unauthorised() as unknown_key:
            return _invalid(401, "invalid_api_key", str(unknown_key), headers=BEARER)
        case Forbidden() as refused:
            return _invalid(403, refused.code, str(refused), refused.param)
        case TooMany() as often:
            return Fault(
                429, "requests", "rate_limit_exceeded", str(often), None, _wait(often.retry_after)
            )
        case QuotaSpent() as quota:
            # The quota may renew in hours, so clients must not retry automatically.
            wait = {"retry-after": str(math.ceil(quota.retry_after))} | NO_RETRY
            return Fault(429, "insufficient_quota", "insufficient_quota", str(quota), None, wait)
        case Overloaded() as full:
            return Fault(
                429, "rate_limit_error", "overloaded", str(full), None, _wait(full.retry_after)
            )
        case Diverged() as diverged:
            return _invalid(409, "resume_diverged", str(diverged), PARAM, NO_RETRY)
        case NotReady() as loading:
            return unavailable(str(loading), "loading", {loading.model: loading.state})
        case QuorumLost() as lost:
            return unavailable(str(lost), "quorum_lost", lost.states)
        case MemberFailed() as failed:
            return unavailable(str(failed), "member_failed", {failed.member: failed.reason})
        case ConfigError() | WeightsError() | Unsupported() as lasting:
            return Fault(500, "server_error", "misconfigured", str(lasting), None, NO_RETRY)
        case OrchestrionError() as fault:
            return Fault(500, "server_error", _snake(type(fault).__name__), str(fault))
        case HTTPException() as http:
            code = ROUTE_CODES.get(http.status_code, "http_error")
            return _invalid(http.status_code, code, http.detail, headers=http.headers)
        case _:
            return Fault(
                500,
                "server_error",
                "internal_error",
                "internal error; the server's log has the details",
            )


def unavailable(message: str, code: str, states: Mapping[str, str]) -> Fault:
    """503 with the state of each member. Clients retry a 503 by default: the headers say when,
    while members load, and forbid it after members failed, whose calls were retried already."""
    loading = any("loading" in state for state in states.values())
    headers = _wait(LOADING_RETRY_S) if loading else NO_RETRY
    members = {"members": dict(states)}
    return Fault(503, "ensemble_unavailable", code, message, None, headers, members)


def _invalid(
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Fault:
    return Fault(status, "invalid_request_error", code, message, param, headers or {})


def _wait(seconds: float) -> dict[str, str]:
    bounded = min(max(seconds, 0.001), MAX_RETRY_S)
    return {
        "retry-after": str(math.ceil(bounded)),
        "retry-after-ms": str(math.ceil(bounded * 1000)),
    }


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} …"


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")
