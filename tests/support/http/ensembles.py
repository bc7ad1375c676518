"""Small honest ensembles, and two ways to reach an endpoint over them: in process, or over a real
server on loopback."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

from deployments.http.answerer import Ensemble
from deployments.http.gateway import build_api
from runtime.config.gateway import GatewayConfig
from runtime.types.events import Checkpoint, Ended, Event, Written
from runtime.types.query import Query
from runtime.types.spans import Span

WORDS = ("one two three four five six seven naïve café 漢字 😀 \u2028 ten eleven twelve").split(" ")


def body(text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


class Chorus:
    """Members write in turn, three words a span, drawn from the prompt and the seed. Tokens are
    words; token ids are places in ``WORDS``."""

    def __init__(self, members: Sequence[str] = ("ann", "bob"), pause: float = 0.0) -> None:
        self.members = tuple(members)
        self.pause = pause
        self.queries: list[Query] = []
        self.cancelled = 0

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        self.queries.append(query)
        prompt = query.prompt or " ".join(message.content for message in query.messages)
        members = query.members or self.members
        drawn = random.Random(f"{prompt}|{query.seed}|{query.temperature}")
        words = [drawn.choice(WORDS) for _ in range(drawn.randint(20, 30))]
        limited = words[: query.max_tokens]
        text = "".join(f" {word}" for word in limited)
        cuts = [text.find(stop) for stop in query.stop if stop in text]
        if cuts:
            text = text[: min(cuts)]
        reason = "stop" if cuts or len(limited) == len(words) else "length"
        pieces = [limited[at : at + 3] for at in range(0, len(limited), 3)]
        at, spans = 0, []
        try:
            for step, piece in enumerate(pieces):
                await asyncio.sleep(self.pause)
                author = members[step % len(members)]
                shown = text[at : at + sum(len(word) + 1 for word in piece)]
                if not shown:
                    break
                spans.append({"start": at, "end": at + len(shown), "model": author, "step": step})
                at += len(shown)
                yield Written(shown, Span(shown, author, step, {author: -0.5}), Checkpoint())
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        yield Ended(
            reason,
            "stop" if cuts else "eos" if reason == "stop" else "length",
            len(prompt.split()),
            len(text.split(" ")) - 1 if text else 0,
            self._summary(query, members, spans),
        )

    def _summary(self, query: Query, members: Sequence[str], spans: list[Any]) -> dict[str, Any]:
        return {
            "trace_id": query.id,
            "method": "turns",
            "level": "span",
            "members": [{"model": name, "status": "ok", "calls": len(spans)} for name in members],
            "spans": spans,
            "steps": len(spans),
            "usage": {"model_calls": 2 * len(spans), "total_tokens": 100},
            "cost": {"amount": 0.5, "currency": "USD", "source": "configured prices"},
            "latency_ms": {"members": 3},
            "stop_reason": "eos",
            "degraded": False,
            "warnings": [],
            "full": {"rounds": [{"scores": {"ann": float("-inf")}}]},
        }

    async def card(self) -> dict[str, Any]:
        return {
            "method": "turns",
            "level": "span",
            "kind": "ensemble",
            "members": list(self.members),
            "supports": {"stream": True, "n": True, "logprobs": False, "echo": False},
            "max_model_len": 4096,
            "tokenizer": self.members[0],
            "fingerprint": "abc123",
        }

    async def decode(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[id] for id in ids)


class Faulty(Chorus):
    """Writes ``spans`` spans and then fails."""

    def __init__(self, fault: Exception, spans: int = 0) -> None:
        super().__init__()
        self.fault, self.spans = fault, spans

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        for step in range(self.spans):
            yield Written(f"word{step} ", Span(f"word{step} ", "ann", step), Checkpoint())
        raise self.fault


class Endless(Chorus):
    """Writes until it is stopped, and counts."""

    def __init__(self, pause: float = 0.01, text: str = "la ") -> None:
        super().__init__()
        self.pause, self.piece = pause, text
        self.written = 0
        self.closed = threading.Event()

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        try:
            while True:
                await asyncio.sleep(self.pause)
                self.written += 1
                yield Written(self.piece, Span(self.piece, "ann", self.written), Checkpoint())
        finally:
            self.closed.set()


class Mute(Endless):
    """Thinks for ever and writes nothing."""

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        self.written += 1
        try:
            await asyncio.Event().wait()
            yield Written("", None, Checkpoint())
        finally:
            self.closed.set()


class Loading(Chorus):
    """Not up yet."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault = fault

    async def card(self) -> dict[str, Any]:
        raise self.fault


def api_of(models: Mapping[str, Ensemble], keep: int = 100, **config: Any) -> FastAPI:
    return build_api(GatewayConfig(**config), models, keep=keep)


@dataclass
class Reply:
    """What an ASGI application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""

    def json(self) -> Any:
        return json.loads(self.content)

    def events(self) -> list[Any]:
        """The JSON of all data lines but the last, which must be [DONE]."""
        lines = [line[6:] for line in self.content.split(b"\n") if line.startswith(b"data: ")]
        assert lines.pop() == b"[DONE]"
        return [json.loads(line) for line in lines]


async def call(
    api: FastAPI,
    method: str,
    path: str,
    payload: Any = None,
    headers: Mapping[str, str] | None = None,
    leave: asyncio.Event | None = None,
) -> Reply:
    """One request without a network; the client goes when ``leave`` is set."""
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    pending = [{"type": "http.request", "body": content, "more_body": False}]
    reply, never = Reply(), asyncio.Event()

    async def receive() -> Any:
        if pending:
            return pending.pop()
        await (leave or never).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            reply.content += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        "client": ("test", 1),
        "server": ("test", 80),
    }
    await api(scope, receive, send)
    return reply


@contextmanager
def served(api: FastAPI) -> Iterator[str]:
    """Base URL of a real server that runs ``api`` in a thread."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(api, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
