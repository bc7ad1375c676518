"""Server-sent events: their bytes, and the response that sends them as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from deployments.http.openai.json_bytes import encode
from deployments.http.streaming.disconnect import ClientLeft, while_connected

DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment: decoders drop it, proxies see a live connection."""


def comment(text: str) -> bytes:
    """A comment line, which decoders drop."""
    return b": " + text.encode() + b"\n\n"


def event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + encode(data) + b"\n\n"


class EventStream(Response):
    """Sends each piece at once. The status is not sent before the first piece exists, so a fault
    up to there propagates and becomes an ordinary error reply. When the client leaves, the
    generator is cancelled. A slow reader holds the generator back through the socket."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces):
            try:
                await while_connected(receive, self._send(send))
            except ClientLeft:
                return

    async def _send(self, send: Send) -> None:
        started = False
        async for piece in self._pieces:
            if not started:
                start = {"type": "http.response.start", "status": self.status_code}
                await _sent(send, {**start, "headers": self.raw_headers})
                started = True
            await _sent(send, {"type": "http.response.body", "body": piece, "more_body": True})
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _sent(send: Send, message: Message) -> None:
    try:
        await send(message)
    except OSError as broken:
        raise ClientLeft from broken
