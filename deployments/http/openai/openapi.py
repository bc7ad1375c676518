"""``GET /openapi.json``: the endpoint's OpenAPI document, generated from the request models and
from ``replies``. Tests validate real replies, chunks and errors against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from deployments.http.openai import replies
from deployments.http.openai.json_bytes import encode
from deployments.http.openai.requests import ChatRequest, CompletionRequest, OpenAIRequest
from deployments.http.openai.unsupported import NO_EFFECT

SCHEMAS: Final = "#/components/schemas/"
REPLY_HEADERS: Final[Mapping[str, str]] = {
    "x-ensemble-trace-id": "the id of the answer for GET /v1/traces/{id}",
    "x-ensemble-method": "the ensemble's method",
    "x-ensemble-model": "the members, joined by commas",
}
RETRY_HEADERS: Final[Mapping[str, str]] = {
    "retry-after": "seconds to wait",
    "retry-after-ms": "milliseconds to wait",
    "x-should-retry": "`false` where repeating the request cannot help",
}
IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Names the answer, together with the body: the same request under the same key "
    "has the same trace id and seed, and continues where it was.",
}
FAULTS: Final[Mapping[str, str]] = {
    "400": "the request is invalid (`param` names the field) or exceeds a member's context",
    "404": "no such model, trace or route",
    "409": "the answer to resume (`ensemble.resume`) can no longer be reproduced",
    "413": "the body is larger than `gateway.max_body_bytes`",
    "429": "the server is at its limit of concurrent answers, or a queue is full",
    "500": "an error of the server; its log has the details",
    "503": "members are loading, or too few are left; `members` has the state of each",
}


async def openapi() -> Response:
    """The route."""
    return Response(_encoded(), media_type="application/json")


@cache
def _encoded() -> bytes:
    return encode(document())


def document() -> dict[str, Any]:
    request: list[tuple[type[BaseModel], Any]] = [
        (ChatRequest, "validation"), (CompletionRequest, "validation"),
    ]  # fmt: skip
    _, definitions = models_json_schema(
        [*request, *replies.reply_models()], ref_template=SCHEMAS + "{model}"
    )
    schemas = definitions["$defs"]
    for form in (ChatRequest, CompletionRequest):
        _add_unsupported(form, schemas[form.__name__])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orchestrion",
            "version": "1",
            "description": "Ensembles of language models as one, behind OpenAI's HTTP API. "
            "Types are strict: an integer has no decimal point, and null means not set.",
        },
        "paths": _paths(),
        "components": {"schemas": schemas, "headers": _headers()},
    }


def _add_unsupported(form: type[OpenAIRequest], schema: dict[str, Any]) -> None:
    """Adds the keys that no method supports, with the values that are accepted."""
    for name, values in NO_EFFECT.items():
        if name not in form.model_fields:
            schema["properties"][name] = {
                "enum": [None, *values],
                "description": "Not supported: only values without effect are accepted.",
            }


def _paths() -> dict[str, Any]:
    name = {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/chat/completions": {
            "post": _generation(
                "An answer to a conversation", ChatRequest, replies.ChatReply, replies.ChatChunk
            ),
        },
        "/v1/completions": {
            "post": _generation(
                "The continuation of one prompt or several",
                CompletionRequest,
                replies.TextReply,
                replies.TextChunk,
            ),
        },
        "/v1/models": {"get": _read("All models, ensembles first", replies.Models)},
        "/v1/models/{id}": {
            "get": _read("One model; its id may hold slashes", replies.Model, "404")
            | {"parameters": [{"name": "id", **name}]},
        },
        "/v1/traces/{id}": {
            "get": _read(
                "A recent answer's ensemble object, by trace id or reply id", replies.Trace, "404"
            )
            | {"parameters": [{"name": "id", **name}]},
        },
        "/health": {
            "get": _read("Whether the gateway lives", replies.Live),
            "head": _head("Whether the gateway lives"),
        },
        "/ready": {
            "get": _read("Whether all models can answer", replies.Ready, "503"),
            "head": _head("Whether all models can answer", "503"),
        },
        "/openapi.json": {
            "get": _read("This document", None),
        },
    }


def _generation(
    summary: str, request: type[BaseModel], reply: type[BaseModel], chunk: type[BaseModel]
) -> dict[str, Any]:
    whole = {"schema": _ref(reply)}
    stream = {
        "schema": {
            "type": "string",
            "description": "Server-sent events: `data: ` and JSON as x-event describes, ended by "
            "`data: [DONE]`. An error after the first chunk is an event with `error`, the last "
            "one. Lines that begin with a colon are comments.",
        },
        "x-event": {"anyOf": [_ref(chunk), _ref(replies.Error)]},
    }
    return {
        "summary": summary,
        "parameters": [IDEMPOTENCY],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(request)}},
        },
        "responses": {
            "200": {
                "description": "The answer as one object, or as a stream of chunks (`stream`)",
                "headers": _named("x-request-id", *REPLY_HEADERS),
                "content": {"application/json": whole, "text/event-stream": stream},
            },
            **_faults(*FAULTS),
        },
    }


def _read(summary: str, reply: type[BaseModel] | None, *faults: str) -> dict[str, Any]:
    schema = {"type": "object"} if reply is None else _ref(reply)
    ok = {
        "description": summary,
        "headers": _named("x-request-id"),
        "content": {"application/json": {"schema": schema}},
    }
    return {"summary": summary, "responses": {"200": ok, **_faults(*faults, "500")}}


def _head(summary: str, *faults: str) -> dict[str, Any]:
    """The HEAD form of a GET route: no body."""
    headers = _named("x-request-id")
    texts = {"200": summary, **{status: FAULTS[status] for status in (*faults, "500")}}
    return {
        "summary": summary,
        "responses": {
            status: {"description": text, "headers": headers} for status, text in texts.items()
        },
    }


def _faults(*statuses: str) -> dict[str, Any]:
    return {
        status: {
            "description": FAULTS[status],
            "headers": _named(
                "x-request-id", *(RETRY_HEADERS if status in ("429", "500", "503") else ())
            ),
            "content": {"application/json": {"schema": _ref(replies.Error)}},
        }
        for status in dict.fromkeys(statuses)
    }


def _headers() -> dict[str, Any]:
    known = {
        "x-request-id": "the client's own, or a generated one",
        **REPLY_HEADERS,
        **RETRY_HEADERS,
    }
    return {
        name: {"description": text, "schema": {"type": "string"}} for name, text in known.items()
    }


def _named(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMAS + model.__name__}
