"""``GET /openapi.json``: the endpoint's OpenAPI document, made from the models that check requests
and from those in ``reply_schema``. Tests hold real replies, chunks and errors against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from deployments.http.openai import replies as told
from deployments.http.openai.json_bytes import encode
from deployments.http.openai.requests import Asked, ChatRequest, CompletionRequest
from deployments.http.openai.unsupported import ASKS_NOTHING

SCHEMAS: Final = "#/components/schemas/"
REPLY_HEADERS: Final[Mapping[str, str]] = {
    "x-ensemble-trace-id": "under which GET /v1/traces/{id} knows the answer",
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
    "has the same trace id and seed, and goes on where it was.",
}
FAULTS: Final[Mapping[str, str]] = {
    "400": "the request is wrong; `param` says where, or it does not fit a member's window",
    "404": "no such model, trace or route",
    "409": "an answer that was to go on (`ensemble.resume`) has become another one",
    "413": "the body is larger than `gateway.max_body_bytes`",
    "429": "as many answers as may be are being written, or a queue is full",
    "500": "a fault of the server; its log has the rest",
    "503": "members load, or too few of them are left; `members` has each one's state",
}


async def openapi() -> Response:
    """The route."""
    return Response(_encoded(), media_type="application/json")


@cache
def _encoded() -> bytes:
    return encode(document())


def document() -> dict[str, Any]:
    asked: list[tuple[type[BaseModel], Any]] = [
        (ChatRequest, "validation"), (CompletionRequest, "validation"),
    ]  # fmt: skip
    _, definitions = models_json_schema(
        [*asked, *told.described()], ref_template=SCHEMAS + "{model}"
    )
    schemas = definitions["$defs"]
    for form in (ChatRequest, CompletionRequest):
        _tell_refused(form, schemas[form.__name__])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orchestrion",
            "version": "1",
            "description": "Ensembles of language models as one, behind OpenAI's HTTP API. "
            "Types are strict: an integer has no decimal point, and null means absent.",
        },
        "paths": _paths(),
        "components": {"schemas": schemas, "headers": _headers()},
    }


def _tell_refused(form: type[Asked], schema: dict[str, Any]) -> None:
    """Keys that no method can honour, with the values that ask for nothing."""
    for name, nothing in ASKS_NOTHING.items():
        if name not in form.model_fields:
            schema["properties"][name] = {
                "enum": [None, *nothing],
                "description": "Not supported: values that ask for something are refused.",
            }


def _paths() -> dict[str, Any]:
    name = {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/chat/completions": {
            "post": _writing("An answer to a conversation", ChatRequest, told.ChatReply,
                             told.ChatChunk),
        },
        "/v1/completions": {
            "post": _writing("The continuation of one prompt or several", CompletionRequest,
                             told.TextReply, told.TextChunk),
        },
        "/v1/models": {"get": _reading("All models, ensembles first", told.Models)},
        "/v1/models/{id}": {
            "get": _reading("One model; its id may hold slashes", told.Model, "404")
            | {"parameters": [{"name": "id", **name}]},
        },
        "/v1/traces/{id}": {
            "get": _reading("A recent answer's ensemble object, by trace id or reply id",
                            told.Trace, "404")
            | {"parameters": [{"name": "id", **name}]},
        },
        "/health": {
            "get": _reading("Whether the gateway lives", told.Live),
            "head": _silent("Whether the gateway lives"),
        },
        "/ready": {
            "get": _reading("Whether all models can answer", told.Ready, "503"),
            "head": _silent("Whether all models can answer", "503"),
        },
        "/openapi.json": {
            "get": _reading("This document", None),
        },
    }  # fmt: skip


def _writing(
    summary: str, asked: type[BaseModel], reply: type[BaseModel], chunk: type[BaseModel]
) -> dict[str, Any]:
    whole = {"schema": _ref(reply)}
    stream = {
        "schema": {
            "type": "string",
            "description": "Server-sent events: `data: ` and JSON as x-event describes, at last "
            "`data: [DONE]`. A fault after the first word is an event with `error`, the last one. "
            "Lines that begin with a colon are comments.",
        },
        "x-event": {"anyOf": [_ref(chunk), _ref(told.Error)]},
    }
    return {
        "summary": summary,
        "parameters": [IDEMPOTENCY],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(asked)}},
        },
        "responses": {
            "200": {
                "description": "The answer, as one object or (`stream`) as it is written",
                "headers": _named("x-request-id", *REPLY_HEADERS),
                "content": {"application/json": whole, "text/event-stream": stream},
            },
            **_faults(*FAULTS),
        },
    }


def _reading(summary: str, reply: type[BaseModel] | None, *faults: str) -> dict[str, Any]:
    schema = {"type": "object"} if reply is None else _ref(reply)
    found = {
        "description": summary,
        "headers": _named("x-request-id"),
        "content": {"application/json": {"schema": schema}},
    }
    return {"summary": summary, "responses": {"200": found, **_faults(*faults, "500")}}


def _silent(summary: str, *faults: str) -> dict[str, Any]:
    """The same question without a body."""
    headers = _named("x-request-id")
    told = {"200": summary, **{status: FAULTS[status] for status in (*faults, "500")}}
    return {
        "summary": summary,
        "responses": {
            status: {"description": text, "headers": headers} for status, text in told.items()
        },
    }


def _faults(*statuses: str) -> dict[str, Any]:
    return {
        status: {
            "description": FAULTS[status],
            "headers": _named(
                "x-request-id", *(RETRY_HEADERS if status in ("429", "500", "503") else ())
            ),
            "content": {"application/json": {"schema": _ref(told.Error)}},
        }
        for status in dict.fromkeys(statuses)
    }


def _headers() -> dict[str, Any]:
    known = {"x-request-id": "the caller's own, or a new one", **REPLY_HEADERS, **RETRY_HEADERS}
    return {
        name: {"description": text, "schema": {"type": "string"}} for name, text in known.items()
    }


def _named(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMAS + model.__name__}
