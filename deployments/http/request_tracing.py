"""Request ids and spans of the gateway, for its log lines and traces."""

from __future__ import annotations

import logging
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.errors import Fault
from deployments.http.openai.exchange import Exchange
from runtime.call_context import RequestIds, current_request, request_context
from runtime.observability.logs import log_event
from runtime.observability.tracing import begin, current_activity, error_type, within

logger = logging.getLogger(__name__)

TRACED_ROUTES: Final = ("/v1/chat/completions", "/v1/completions")
"""Routes whose POST requests have a span."""


class RequestTracingMiddleware:
    """ASGI middleware inside ``RequestIdMiddleware``, which knows the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with request_context(RequestIds(scope["state"]["request_id"])):
            if scope["path"] in TRACED_ROUTES and scope["method"] == "POST":
                await self._traced(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path"]
        attributes = {
            "http.request.method": "POST",
            "http.route": route,
            "orchestrion.request_id": current_request().request_id,
        }
        parent = Headers(scope=scope).get("traceparent", "")
        activity = begin(f"POST {route}", attributes, kind="server", parent=parent)
        error: str | None = None

        async def send_noted(message: Message) -> None:
            nonlocal error
            if message["type"] == "http.response.start":
                status = message["status"]
                activity.note({"http.response.status_code": status})
                error = str(status) if status >= 500 else None  # a refusal is not a server error
            await send(message)

        try:
            with within(activity):
                await self._app(scope, receive, send_noted)
        except BaseException as fault:
            error = error_type(fault)
            raise
        finally:
            activity.end(error)


def note_exchange(exchange: Exchange) -> None:
    """Adds the trace id and model to the request's log context and span."""
    current_request().trace_id = exchange.trace_id
    current_activity().note(
        {
            "gen_ai.request.model": exchange.model,
            "gen_ai.request.stream": exchange.stream,
            "gen_ai.request.choice.count": len(exchange.queries),
            "orchestrion.ensemble": exchange.model,
            "orchestrion.trace_id": exchange.trace_id,
        }
    )


def log_refusal(request: Request, fault: Fault) -> None:
    """Logs a request that was refused or failed. The message is left out: it may quote the body."""
    current_activity().note({"orchestrion.error": fault.code or fault.type})
    log_event(
        logger,
        logging.INFO if fault.status < 500 else logging.WARNING,
        "refused" if fault.status < 500 else "failed",
        path=request.url.path,
        status=fault.status,
        type=fault.type,
        code=fault.code,
    )
