"""The outermost middleware: adds the request id to every reply and answers unexpected errors."""

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

MAX_DIGITS = 20
"""Digits of the largest content-length that is parsed."""
PLAIN = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIdMiddleware:
    """ASGI middleware. Routes add reply headers, also for errors, to
    ``request.state.reply_headers``. Without ``request_ids`` a proxy in front adds the ids."""

    def __init__(self, app: ASGIApp, request_ids: bool = True) -> None:
        self._app = app
        self._request_ids = request_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get("x-request-id", "")
        request_id = sent_id if PLAIN.fullmatch(sent_id) else f"req_{uuid.uuid4().hex}"
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
        except Exception as bug:  # nothing further out could reply; the bug is logged
            log.exception("request %s failed", request_id)
            if started:
                raise
            await fault_of(bug).response()(scope, receive, send_tagged)


async def body_of(request: Request, limit: int, seconds: float) -> bytes:
    """Reads the request's body. Raises 413 as soon as more than ``limit`` bytes are announced or
    received, and 408 when it is not complete after ``seconds``; the connection is then closed."""
    closed = {"connection": "close"}
    too_large = HTTPException(413, f"the body is larger than {limit} bytes", closed)
    announced = request.headers.get("content-length", "0")
    if not (announced.isascii() and announced.isdigit()):
        raise HTTPException(400, "content-length is not a number", closed)
    if len(announced) > MAX_DIGITS or int(announced) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body was not received in {seconds:g} s", closed) from None
    return bytes(body)
