"""The OpenAPI document is valid, complete, and says what the endpoint really answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.routing import APIRoute
from openapi_spec_validator import validate

from deployments.http.openai.openapi import document
from deployments.http.openai.requests import (
    BudgetOptions,
    ChatRequest,
    CompletionRequest,
    EnsembleOptions,
)
from runtime.errors import EngineFault, MemberFailed, Overloaded, QuorumLost
from tests.support.http.ensembles import Chorus, Faulty, Loading, Reply, api_of, body, call
from tests.support.http.openapi_conformance import conforms
from tests.support.local_stack import running
from tests.support.models.method_families import MODELS, families

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[FastAPI]:
    async with running(families()) as stack:
        yield stack.api()


async def request(api: FastAPI, method: str, path: str, payload: Any = None, **more: Any) -> Reply:
    reply = await call(api, method, path, payload, **more)
    conforms(method, path, reply)
    return reply


async def test_the_document_is_valid_and_served() -> None:
    reply = await call(api_of({"m": Chorus()}), "GET", "/openapi.json")
    assert reply.status == 200 and reply.json() == document()
    validate(reply.json())


def test_every_route_is_described_and_no_other() -> None:
    api = api_of({"m": Chorus()})
    real = {
        (route.path_format, method)
        for route in api.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    result = {
        (path, method.upper())
        for path, methods in document()["paths"].items()
        for method in methods
    }
    assert result == real


def test_every_field_of_a_request_is_described() -> None:
    schemas = document()["components"]["schemas"]
    for form in (ChatRequest, CompletionRequest, EnsembleOptions, BudgetOptions):
        assert set(form.model_fields) <= set(schemas[form.__name__]["properties"])
    assert {"calls", "max_calls"} <= set(schemas["BudgetOptions"]["properties"])
    assert schemas["ChatRequest"]["properties"]["tools"]["enum"] == [None, []]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("trace", ["none", "summary", "full"])
@pytest.mark.parametrize("stream", [False, True])
async def test_answers_of_every_family_are_as_described(
    api: FastAPI, model: str, trace: str, stream: bool
) -> None:
    shared = {"model": model, "stream": stream, "seed": 7, "n": 2}
    shared |= {"ensemble": {"trace": trace}, "stream_options": {"include_usage": True}}
    reply = await request(api, "POST", CHAT, body(**shared))
    assert reply.status == 200
    reply = await request(api, "POST", TEXT, {"prompt": ["the", "a"], "echo": True, **shared})
    assert reply.status == 200
    trace_id = reply.headers["x-ensemble-trace-id"]
    found = await request(api, "GET", f"/v1/traces/{trace_id}")
    assert found.status == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", ["single", "gac", "cat"])
@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_are_as_described(api: FastAPI, model: str, stream: bool) -> None:
    shared = {"model": model, "stream": stream, "seed": 7, "max_tokens": 3}
    chat = await request(api, "POST", CHAT, body(logprobs=True, top_logprobs=2, **shared))
    scored = {"prompt": [" the cat"], "echo": True, "logprobs": 2, **shared}
    text = await request(api, "POST", TEXT, scored)
    assert (chat.status, text.status) == (200, 200)


@pytest.mark.asyncio(loop_scope="module")
async def test_models_health_and_readiness_are_as_described(api: FastAPI) -> None:
    for method, path in (
        ("GET", "/v1/models"), ("GET", "/v1/models/gac"), ("GET", "/health"), ("HEAD", "/health"),
        ("GET", "/ready"), ("HEAD", "/ready"), ("GET", "/openapi.json"),
    ):  # fmt: skip
        assert (await request(api, method, path)).status == 200
    for path in ("/v1/models/nobody", "/v1/traces/none"):
        assert (await request(api, "GET", path)).status == 404


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Overloaded("the queue"), 429),
        (EngineFault("it broke"), 500),
        (ZeroDivisionError("inside"), 500),
        (QuorumLost(1, {"ann": "dead"}), 503),
        (MemberFailed("ann", "silent"), 503),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_faults_are_as_described(fault: Exception, status: int, stream: bool) -> None:
    api = api_of({"m": Faulty(fault)})
    assert (await request(api, "POST", CHAT, body(stream=stream))).status == status
    late = await request(api_of({"m": Faulty(fault, 2)}), "POST", CHAT, body(stream=True))
    assert late.status == 200 and b'"error"' in late.content


async def test_refusals_and_loading_are_as_described() -> None:
    api = api_of({"m": Chorus()}, max_body_bytes=2000)
    assert (await request(api, "POST", CHAT, {})).status == 400
    assert (await request(api, "POST", CHAT, body(model="x"))).status == 404
    assert (await request(api, "POST", TEXT, {"prompt": "x" * 3000})).status == 413
    loading = api_of({"m": Loading(EngineFault("soon"))})
    for method, path in (("GET", "/ready"), ("HEAD", "/ready"), ("POST", CHAT)):
        assert (await request(loading, method, path, body())).status == 503
    assert (await request(loading, "GET", "/v1/models")).status == 200


async def test_a_reply_with_an_undocumented_key_is_distinguished_from_a_described_one() -> None:
    reply = await request(api_of({"m": Chorus()}), "GET", "/health")
    reply.content = b'{"status":"live","more":1}'
    with pytest.raises(jsonschema.ValidationError, match="more"):
        conforms("GET", "/health", reply)
