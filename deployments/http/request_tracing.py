"""Whose request the gateway is at work on, for its log lines and activities."""

from __future__ import annotations

import logging
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.errors import Fault
from deployments.http.openai.exchange import Exchange
from runtime.call_context import RequestIds, current_request, request_context
from runtime.observability.logs import tell
from runtime.observability.tracing import begin, broke_off, current_activity, within

logger = logging.getLogger(__name__)

ANSWERED: Final = ("/v1/chat/completions", "/v1/completions")
"""Requests that have an activity; to look at models is none."""


class RequestTracingMiddleware:
    """ASGI middleware inside ``RequestIdMiddleware``, which knows the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with request_context(RequestIds(scope["state"]["request_id"])):
            if scope["path"] in ANSWERED and scope["method"] == "POST":
                await self._answered(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path"]
        facts = {
            "http.request.method": "POST",
            "http.route": route,
            "orchestrion.request_id": current_request().request_id,
        }
        parent = Headers(scope=scope).get("traceparent", "")
        activity = begin(f"POST {route}", facts, kind="server", parent=parent)
        error: str | None = None

        async def send_noted(message: Message) -> None:
            nonlocal error
            if message["type"] == "http.response.start":
                status = message["status"]
                activity.note({"http.response.status_code": status})
                error = str(status) if status >= 500 else None  # a refusal is no fault of ours
            await send(message)

        try:
            with within(activity):
                await self._app(scope, receive, send_noted)
        except BaseException as fault:
            error = broke_off(fault)
            raise
        finally:
            activity.end(error)


def understood(exchange: Exchange) -> None:
    """From here on the request is known by its trace id too."""
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


def refused(request: Request, fault: Fault) -> None:
    """A request that gets no answer. Its error's text is the client's alone: it may quote what was
    sent."""
    current_activity().note({"orchestrion.error": fault.code or fault.type})
    tell(
        logger,
        logging.INFO if fault.status < 500 else logging.WARNING,
        "refused" if fault.status < 500 else "failed",
        path=request.url.path,
        status=fault.status,
        type=fault.type,
        code=fault.code,
    )
