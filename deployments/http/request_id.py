"""The outermost layer: every reply gets its request id, and no fault leaves without an answer."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.errors import fault_of

log = logging.getLogger(__name__)

MOST_DIGITS = 20
"""Of a length that a file can have."""
PLAIN = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIdMiddleware:
    """ASGI middleware. Routes put further headers for their reply, errors included, into
    ``request.state.reply_headers``. Without ``request_ids`` a server in front writes them."""

    def __init__(self, app: ASGIApp, request_ids: bool = True) -> None:
        self._app = app
        self._request_ids = request_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if PLAIN.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        headers = {"x-request-id": request_id} if self._request_ids else {}
        scope.setdefault("state", {}).update(reply_headers=headers, request_id=request_id)
        started = False

        async def send_tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(headers)
            await send(message)

        try:
            await self._app(scope, receive, send_tagged)
        except Exception as bug:  # the last place that can still answer; the log keeps the bug
            log.exception("request %s failed", request_id)
            if started:
                raise
            await fault_of(bug).response()(scope, receive, send_tagged)


async def body_of(request: Request, limit: int, seconds: float) -> bytes:
    """The request's body; 413 as soon as more than ``limit`` bytes are announced or sent, 408 when
    it has not come in ``seconds``. What still comes after either is not waited for."""
    closed = {"connection": "close"}
    too_large = HTTPException(413, f"the body is larger than {limit} bytes", closed)
    announced = request.headers.get("content-length", "0")
    if not (announced.isascii() and announced.isdigit()):
        raise HTTPException(400, "content-length is not a number", closed)
    if len(announced) > MOST_DIGITS or int(announced) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body did not come in {seconds:g} s", closed) from None
    return bytes(body)
