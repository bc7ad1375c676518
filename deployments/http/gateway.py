"""The OpenAI-compatible endpoint: routes only. Described for users in docs/api.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from deployments.http.admission import Admission
from deployments.http.answerer import Ensemble
from deployments.http.auth.keys import key_store
from deployments.http.auth.metering import metered
from deployments.http.auth.middleware import AccessMiddleware, caller_of
from deployments.http.errors import fault_of, unavailable
from deployments.http.model_catalog import ModelCatalog
from deployments.http.openai.exchange import (
    Exchange,
    chat_exchange,
    check_choices,
    completion_exchange,
)
from deployments.http.openai.fields import Prompt
from deployments.http.openai.formats import CHAT, TEXT, Form, whole
from deployments.http.openai.json_bytes import encode
from deployments.http.openai.openapi import openapi
from deployments.http.openai.parse import parse
from deployments.http.openai.requests import ChatRequest, CompletionRequest
from deployments.http.openai.resume import KEY, resume_point
from deployments.http.openai.transcript import Transcript
from deployments.http.request_id import RequestIdMiddleware, body_of
from deployments.http.request_tracing import RequestTracingMiddleware, log_refusal, note_exchange
from deployments.http.streaming.chunks import events
from deployments.http.streaming.disconnect import ClientLeft, while_connected
from deployments.http.streaming.merge import arrivals
from deployments.http.streaming.sse import EventStream
from deployments.http.trace_store import LocalTraceStore, TraceStore
from runtime.config.gateway import GatewayConfig
from runtime.errors import BadRequest, OrchestrionError
from runtime.observability.metrics import RESUMED, Counts, Meter

CARD_TIMEOUT_S: Final = 5.0
CLIENT_LEFT: Final = 499
EXPOSED: Final = (
    "x-request-id",
    "x-ensemble-trace-id",
    "x-ensemble-method",
    "x-ensemble-model",
    "x-should-retry",
    "retry-after",
    "retry-after-ms",
)


def build_api(
    config: GatewayConfig,
    models: Mapping[str, Ensemble],
    *,
    keep: int = 1000,
    store_text: bool = True,
    request_ids: bool = True,
    meter: Meter | None = None,
) -> FastAPI:
    """The HTTP application for ``models``, which are listed in their order.

    ``keep`` is the number of traces held in memory, ``store_text`` whether they hold texts.
    ``request_ids`` is False behind Ray Serve, whose proxy adds the header itself. Raises
    ``ConfigError`` for keys that cannot be read."""
    meter = Counts() if meter is None else meter
    api = FastAPI(title="Orchestrion", openapi_url=None, redirect_slashes=False)
    traces, admission = TraceStore(keep, store_text), Admission(config.max_answers, meter)
    gateway = Gateway(config, ModelCatalog(models), traces, admission, meter)
    routes: list[tuple[str, list[str], Callable[..., Awaitable[Response]]]] = [
        ("/v1/chat/completions", ["POST"], gateway.chat),
        ("/v1/completions", ["POST"], gateway.complete),
        ("/v1/models", ["GET"], gateway.models),
        ("/v1/models/{id:path}", ["GET"], gateway.model),
        ("/v1/traces/{id}", ["GET"], gateway.trace),
        ("/openapi.json", ["GET"], openapi),
        ("/health", ["GET", "HEAD"], gateway.health),
        ("/ready", ["GET", "HEAD"], gateway.ready),
    ]
    for path, methods, endpoint in routes:
        api.add_api_route(path, endpoint, methods=methods, response_model=None)
    api.add_exception_handler(OrchestrionError, _error_reply)
    api.add_exception_handler(HTTPException, _error_reply)
    api.add_exception_handler(ClientLeft, _no_reply)
    api.add_exception_handler(ClientDisconnect, _no_reply)
    api.add_middleware(AccessMiddleware, config=config, keys=key_store(config.access), meter=meter)
    api.add_middleware(RequestTracingMiddleware)
    api.add_middleware(RequestIdMiddleware, request_ids=request_ids)
    if config.allow_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=config.allow_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    return api


class Gateway:
    """The route handlers, and the state that all requests share."""

    def __init__(
        self,
        config: GatewayConfig,
        model_catalog: ModelCatalog,
        traces: TraceStore,
        admission: Admission,
        meter: Meter,
    ) -> None:
        self._config = config
        self._admission = admission
        self._meter = meter
        self._model_catalog = model_catalog
        self._traces = traces

    async def chat(self, request: Request) -> Response:
        _refuse_recursion(request)
        started = time.monotonic()
        body = await self._body(request)
        params = parse(ChatRequest, body)
        caller = caller_of(request)
        resume_from = resume_point(
            params.options.resume, request.headers.get(KEY), body, caller.name
        )
        model = caller.choose(self._model_catalog, params.model)
        card = await self._model_catalog.card(model, CARD_TIMEOUT_S)
        exchange = chat_exchange(params, model, card, self._config.max_n, started, resume_from)
        return await self._reply(CHAT, exchange, request)

    async def complete(self, request: Request) -> Response:
        _refuse_recursion(request)
        started = time.monotonic()
        body = await self._body(request)
        params = parse(CompletionRequest, body)
        caller = caller_of(request)
        resume_from = resume_point(
            params.options.resume, request.headers.get(KEY), body, caller.name
        )
        model = caller.choose(self._model_catalog, params.model)
        card = await self._model_catalog.card(model, CARD_TIMEOUT_S)
        ensemble = self._model_catalog[model]
        check_choices(params.n or 1, self._config.max_n, len(params.prompt))
        prompts = await asyncio.gather(*(_read(ensemble, prompt) for prompt in params.prompt))
        max_n = self._config.max_n
        exchange = completion_exchange(params, prompts, model, card, max_n, started, resume_from)
        return await self._reply(TEXT, exchange, request)

    async def models(self, request: Request) -> Response:
        caller, entries = caller_of(request), await self._model_catalog.entries(CARD_TIMEOUT_S)
        return _json({"object": "list", "data": [e for e in entries if caller.may_use(e["id"])]})

    async def model(self, request: Request, id: str) -> Response:
        model = caller_of(request).choose(self._model_catalog, id)
        return _json(await self._model_catalog.entry(model, CARD_TIMEOUT_S))

    async def trace(self, request: Request, id: str) -> Response:
        trace = self._traces.of(caller_of(request).name).find(id)
        if trace is None:
            raise HTTPException(404, f"no trace {id!r}; only the newest traces are kept")
        return _json(trace)

    async def health(self) -> Response:
        return _json({"status": "live"})

    async def ready(self, request: Request) -> Response:
        states = await self._model_catalog.states(CARD_TIMEOUT_S)
        waiting = [name for name, state in states.items() if state != "ready"]
        if caller_of(request).unauthenticated:
            not_ready = unavailable("not ready", "loading", {}).response()
            return not_ready if waiting else _json({"status": "ready"})
        if waiting:
            message = f"not ready: {', '.join(waiting)}"
            return unavailable(message, "loading", states).response()
        return _json({"status": "ready", "models": states})

    async def _body(self, request: Request) -> bytes:
        return await body_of(request, self._config.max_body_bytes, self._config.body_timeout_s)

    async def _reply(self, form: Form, exchange: Exchange, request: Request) -> Response:
        note_exchange(exchange)
        request.state.reply_headers.update(exchange.headers())
        caller = caller_of(request)
        ensemble = metered(self._model_catalog[exchange.model], caller, len(exchange.queries))
        traces = self._traces.of(caller.name)
        if exchange.marks:
            self._meter.record(RESUMED, 1, exchange.model, "client")
        if exchange.stream:
            keep_alive_s = self._config.keep_alive_s
            stream = events(form, exchange, ensemble, traces, keep_alive_s)
            return EventStream(self._admitted(exchange, stream))
        writing = self._write(exchange, ensemble, traces)
        transcript = await while_connected(request.receive, writing)
        return _json(whole(form, exchange, transcript))

    async def _admitted(
        self, exchange: Exchange, stream: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        with self._admission.of(exchange.model, len(exchange.queries)):
            async with aclosing(stream):
                async for piece in stream:
                    yield piece

    async def _write(
        self, exchange: Exchange, ensemble: Ensemble, traces: LocalTraceStore
    ) -> Transcript:
        transcript = Transcript(exchange)
        try:
            with self._admission.of(exchange.model, len(exchange.queries)):
                async with aclosing(arrivals(ensemble, exchange.queries)) as arriving:
                    async for arrival in arriving:
                        if arrival is not None:
                            transcript.add(*arrival)
        except OrchestrionError as fault:
            traces.record(transcript.trace(fault_of(fault).body()))
            raise
        traces.record(transcript.trace())
        return transcript


def _refuse_recursion(request: Request) -> None:
    """Refuses a call from an ensemble whose member is this endpoint: it would never end."""
    depth = request.headers.get("x-ensemble-depth", "0")
    if depth != "0":
        raise BadRequest(
            f"x-ensemble-depth is {depth!r}: a member may not be the endpoint of another "
            "ensemble; configure its model as a member instead",
            "x-ensemble-depth",
            "recursive_ensemble",
        )


async def _read(ensemble: Ensemble, prompt: Prompt) -> tuple[str, tuple[int, ...] | None]:
    """The prompt's text, and its token ids if it was sent as ids."""
    return (prompt, None) if isinstance(prompt, str) else (await ensemble.decode(prompt), prompt)


def _json(value: Any) -> Response:
    return Response(encode(value), media_type="application/json")


async def _error_reply(request: Request, error: Exception) -> Response:
    fault = fault_of(error)
    log_refusal(request, fault)
    return fault.response()


async def _no_reply(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)
