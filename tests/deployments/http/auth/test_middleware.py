"""Which requests are admitted: keys, models for each key, request limits."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from deployments.http.answerer import Ensemble
from deployments.http.auth.keys import hash_of
from tests.deployments.http.auth.guarded_api import ANN, BOB, CHAT, bearer, guarded, said
from tests.support.http.ensembles import (
    Chorus,
    Faulty,
    Mute,
    api_of,
    body,
    call,
)


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("nobody's"), bearer(""), {"authorization": ANN}, {"authorization": f"Basic {ANN}"}]
    + [{"x-api-key": ANN}, bearer(ANN[:-1]), bearer(ANN.upper()), bearer(hash_of(ANN))],
)
async def test_without_a_key_nothing_is_done(tmp_path: Path, headers: dict[str, str]) -> None:
    ensemble = Chorus()
    api = guarded(tmp_path, {"m": ensemble})
    for method, path in [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/m")] + [
        ("POST", "/v1/completions"), ("GET", "/v1/traces/x"), ("GET", "/nowhere")
    ]:  # fmt: skip
        reply = await call(api, method, path, body(), headers)
        assert said(reply) == (401, "invalid_request_error", "invalid_api_key")
        assert reply.headers["www-authenticate"] == 'Bearer realm="orchestrion"'
        assert reply.headers["x-request-id"]
    assert not ensemble.queries


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER  "])
async def test_with_a_key_all_is_as_without_keys(tmp_path: Path, scheme: str) -> None:
    ensemble = Chorus()
    api = guarded(tmp_path, {"m": ensemble})
    headers = {"authorization": f"{scheme} {ANN}"}
    reply = await call(api, "POST", CHAT, body(seed=1), headers)
    bare = await call(api_of({"m": Chorus()}), "POST", CHAT, body(seed=1))
    assert reply.status == 200
    assert reply.json()["choices"] == bare.json()["choices"]
    assert ensemble.queries[0].caller == "ann"
    assert (await call(api, "GET", "/v1/models", headers=headers)).status == 200


async def test_a_stranger_may_ask_whether_the_server_lives_but_no_names(tmp_path: Path) -> None:
    api = guarded(tmp_path, {"secret-model": Chorus()})
    for path in ("/health", "/ready"):
        for headers in ({}, bearer("nobody's")):
            reply = await call(api, "GET", path, headers=headers)
            assert reply.status == 200 and b"secret-model" not in reply.content
    result = await call(api, "GET", "/ready", headers=bearer(ANN))
    assert result.json()["models"] == {"secret-model": "ready"}


async def test_below_a_prefix_a_stranger_may_ask_the_same(tmp_path: Path) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/llm/health", "root_path": "/llm"}
    scope |= {"headers": [], "query_string": b""}
    await guarded(tmp_path)(scope, lambda: asyncio.sleep(9), send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 200


async def test_a_stranger_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    async def never() -> Any:
        raise AssertionError("the body was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    await guarded(tmp_path)(scope, never, send)
    assert sent[0]["status"] == 401


async def test_keys_are_reported_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api = guarded(tmp_path, {"m": Chorus(), "bad": Faulty(RuntimeError("a bug"))}, concurrent=1)
    for key in (ANN, "wrong-" + ANN):
        for model in ("m", "bad", "nothing"):
            reply = await call(api, "POST", CHAT, body(model=model), bearer(key))
            assert ANN not in reply.content.decode() + str(reply.headers)
            if trace := reply.headers.get("x-ensemble-trace-id"):
                shown = await call(api, "GET", f"/v1/traces/{trace}", headers=bearer(key))
                assert ANN not in shown.content.decode()
    assert ANN not in caplog.text


async def test_a_model_that_is_not_for_a_key(tmp_path: Path) -> None:
    models: dict[str, Ensemble] = {"one": Chorus(), "two": Chorus()}
    api = guarded(tmp_path, models, models=["two"])
    refused = await call(api, "POST", CHAT, body(model="one"), bearer(ANN))
    assert said(refused) == (403, "invalid_request_error", "model_not_allowed")
    assert refused.json()["error"]["param"] == "model"
    assert (await call(api, "GET", "/v1/models/one", headers=bearer(ANN))).status == 403
    assert (await call(api, "POST", CHAT, body(model="two"), bearer(ANN))).status == 200
    assert (await call(api, "POST", CHAT, body(), bearer(ANN))).json()["model"] == "two"
    missing = await call(api, "POST", CHAT, body(model="three"), bearer(ANN))
    assert missing.status == 404 and "one" not in missing.json()["error"]["message"]
    for key, names in ((ANN, ["two"]), (BOB, ["one", "two"])):
        listed = (await call(api, "GET", "/v1/models", headers=bearer(key))).json()
        assert [entry["id"] for entry in listed["data"]] == names


async def test_a_trace_belongs_to_the_key_that_made_it(tmp_path: Path) -> None:
    api = guarded(tmp_path)
    reply = await call(api, "POST", CHAT, body(), bearer(ANN))
    path = f"/v1/traces/{reply.json()['id']}"
    found = [(await call(api, "GET", path, headers=bearer(key))).status for key in (ANN, BOB)]
    assert found == [200, 404]


async def test_too_many_requests_say_when_to_come_back(tmp_path: Path) -> None:
    ensemble = Chorus()
    api = guarded(tmp_path, {"m": ensemble}, requests_per_minute=2)
    replies = [await call(api, "POST", CHAT, body(), bearer(ANN)) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert said(replies[2]) == (429, "requests", "rate_limit_exceeded")
    assert 1 <= int(replies[2].headers["retry-after"]) <= 30
    assert len(ensemble.queries) == 2
    assert (await call(api, "POST", CHAT, body(), bearer(BOB))).status == 200
    assert (await call(api, "GET", "/v1/models", headers=bearer(ANN))).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_count_until_their_answers_end_however_they_end(
    tmp_path: Path, stream: bool
) -> None:
    mute = Mute()
    api = guarded(tmp_path, {"m": Chorus(), "mute": mute}, concurrent=1)
    leave = asyncio.Event()
    params = body(model="mute", stream=stream)
    running = asyncio.create_task(call(api, "POST", CHAT, params, bearer(ANN), leave))
    while not mute.written:
        await asyncio.sleep(0)
    busy = await call(api, "POST", CHAT, body(model="m"), bearer(ANN))
    assert said(busy) == (429, "requests", "rate_limit_exceeded")
    leave.set()
    await running
    for content in (b"no JSON", b'{"model": "nothing"}'):
        await call(api, "POST", CHAT, content, bearer(ANN))
    assert (await call(api, "POST", CHAT, body(model="m"), bearer(ANN))).status == 200
