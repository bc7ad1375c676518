"""Who is let in, to what, how often, and what it costs them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI

from deployments.config.app_config import AppConfig
from deployments.http.answerer import Ensemble
from deployments.http.auth.keys import hash_of
from deployments.http.auth.metering import spent
from deployments.http.gateway import build_api
from deployments.launch.in_process import LocalStack
from runtime.config.gateway import GatewayConfig
from runtime.errors import QuorumLost
from runtime.types.events import Checkpoint, Ended, Event, MemberUsage, Recalled, Written
from runtime.types.query import Query
from runtime.types.spans import Span
from tests.support.http.ensembles import (
    Chorus,
    Endless,
    Faulty,
    Mute,
    Reply,
    api_of,
    body,
    call,
    served,
)
from tests.support.local_stack import animals

CHAT = "/v1/chat/completions"
ANN, BOB = "key-of-ann-0123456789", "key-of-bob-0123456789"


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} | more


def keys_file(folder: Path, **ann: Any) -> Path:
    """Ann with limits, Bob without."""
    path = folder / "keys.yaml"
    known = [{"name": "ann", "sha256": hash_of(ANN)} | ann, {"name": "bob", "sha256": hash_of(BOB)}]
    path.write_text(json.dumps({"keys": known}))
    return path


def guarded(folder: Path, served: dict[str, Ensemble] | None = None, **ann: Any) -> FastAPI:
    access = {"keys_file": str(keys_file(folder, **ann))}
    return api_of({"m": Chorus()} if served is None else served, access=access)


def said(reply: Reply) -> tuple[int, str, str]:
    error = reply.json()["error"]
    return reply.status, error["type"], error["code"]


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
    told = await call(api, "GET", "/ready", headers=bearer(ANN))
    assert told.json()["models"] == {"secret-model": "ready"}


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


async def test_keys_are_told_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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


async def test_too_many_requests_are_told_when_to_come_back(tmp_path: Path) -> None:
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
    asked = body(model="mute", stream=stream)
    running = asyncio.create_task(call(api, "POST", CHAT, asked, bearer(ANN), leave))
    while not mute.written:
        await asyncio.sleep(0)
    busy = await call(api, "POST", CHAT, body(model="m"), bearer(ANN))
    assert said(busy) == (429, "requests", "rate_limit_exceeded")
    leave.set()
    await running
    for content in (b"no JSON", b'{"model": "nothing"}'):
        await call(api, "POST", CHAT, content, bearer(ANN))
    assert (await call(api, "POST", CHAT, body(model="m"), bearer(ANN))).status == 200


class Paid(Chorus):
    """Each span costs 10 tokens and a quarter, and the first one can be waited for."""

    def __init__(self, spans: int = 4, pause: float = 0.0, fault: Exception | None = None) -> None:
        super().__init__(pause=pause)
        self.spans, self.fault = spans, fault

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        self.queries.append(query)
        for step in range(self.spans):
            await asyncio.sleep(self.pause)
            used = {"ann": MemberUsage(prompt_tokens=6 * step + 6, cost=0.125 * step + 0.125)}
            used["bob"] = MemberUsage(completion_tokens=4 * step + 4, cost=0.125 * step + 0.125)
            yield Written("la ", Span("la ", "ann", step), Checkpoint(usage=used))
        if self.fault is not None:
            raise self.fault
        total = {"total_tokens": 10 * self.spans}, {"amount": 0.25 * self.spans}
        yield Ended(
            "stop", "eos", 1, 1, {"trace_id": query.id, "usage": total[0], "cost": total[1]}
        )


def test_what_events_have_cost() -> None:
    used = {"a": MemberUsage(prompt_tokens=7, cached_tokens=9, completion_tokens=2, cost=0.5)}
    used["b"] = MemberUsage(completion_tokens=3, cost=0.25)
    assert spent(Written("", None, Checkpoint(usage=used))) == (12, 0.75)
    summary = {"usage": {"total_tokens": 40}, "cost": {"amount": 1.5}}
    assert spent(Ended("stop", "eos", 1, 1, summary)) == (40, 1.5)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_pays_for_what_its_answers_cost_and_is_refused_when_it_is_spent(
    tmp_path: Path, stream: bool
) -> None:
    paid = Paid()
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 100, "cost": 9.0})
    for _ in range(2):
        assert (await call(api, "POST", CHAT, body(stream=stream), bearer(ANN))).status == 200
    assert [query.budget.tokens for query in paid.queries] == [100, 60]
    assert [query.budget.cost for query in paid.queries] == [9.0, 8.0]
    narrow = body(stream=stream, ensemble={"budget": {"tokens": 5}})
    await call(api, "POST", CHAT, narrow, bearer(ANN))
    assert paid.queries[2].budget.tokens == 5, "a request may ask for less"
    refused = await call(api, "POST", CHAT, body(stream=stream), bearer(ANN))
    assert said(refused) == (429, "insufficient_quota", "insufficient_quota")
    assert 0 < int(refused.headers["retry-after"]) <= 86400
    assert refused.headers["x-should-retry"] == "false"
    assert len(paid.queries) == 3
    await call(api, "POST", CHAT, body(stream=stream), bearer(BOB))
    assert paid.queries[3].budget.tokens is None


async def test_what_is_known_of_an_answer_that_is_asked_for_again_is_not_paid_twice(
    tmp_path: Path,
) -> None:
    """What the key has left bounds what comes after it."""
    paid = Paid()
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 100, "cost": 9.0})
    for _ in range(2):
        again = {**bearer(ANN), "idempotency-key": "once"}
        assert (await call(api, "POST", CHAT, body(), again)).status == 200
    assert [query.left.tokens for query in paid.queries] == [100, 60]
    assert [query.budget.tokens for query in paid.queries] == [None, None]


async def test_recalled_text_costs_nothing(tmp_path: Path) -> None:
    class Known(Paid):
        async def answer(self, query: Query) -> AsyncIterator[Event]:
            self.queries.append(query)
            used = {"ann": MemberUsage(prompt_tokens=40)}
            if query.again:
                yield Recalled("la la ", Checkpoint(usage=used))
            yield Ended("stop", "eos", 1, 1, {"trace_id": "t", "usage": {"total_tokens": 45}})

    known = Known()
    api = guarded(tmp_path, {"m": known}, budget={"tokens": 100})
    await call(api, "POST", CHAT, body(), {**bearer(ANN), "idempotency-key": "once"})
    await call(api, "POST", CHAT, body(), bearer(ANN))
    assert known.queries[1].budget.tokens == 95


async def test_choices_share_what_is_left(tmp_path: Path) -> None:
    paid = Paid()
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 100})
    await call(api, "POST", CHAT, body(n=3), bearer(ANN))
    assert [query.budget.tokens for query in paid.queries] == [33, 33, 33]
    refused = await call(api, "POST", CHAT, body(), bearer(ANN))
    assert refused.status == 429, "three answers cost 120"


async def test_an_answer_that_is_broken_off_is_paid_up_to_its_last_span(tmp_path: Path) -> None:
    paid = Paid(spans=1000, pause=0.01)
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 10_000})
    leave = asyncio.Event()
    asked = body(stream=True)
    running = asyncio.create_task(call(api, "POST", CHAT, asked, bearer(ANN), leave))
    await asyncio.sleep(0.2)
    leave.set()
    streamed = (await running).content.count(b'"content":"la "')
    assert streamed > 2
    await call(api, "POST", CHAT, body(stream=True), bearer(ANN), leave)
    assert paid.queries[1].budget.tokens == 10_000 - 10 * streamed


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_fails_is_paid_up_to_there(tmp_path: Path, stream: bool) -> None:
    paid = Paid(spans=3, fault=QuorumLost(2, {"ann": "gone"}))
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 1000})
    for _ in range(2):
        await call(api, "POST", CHAT, body(stream=stream), bearer(ANN))
    assert paid.queries[1].budget.tokens == 970


async def test_several_gateways_grant_a_part_each(tmp_path: Path) -> None:
    access = {"keys_file": str(keys_file(tmp_path, requests_per_minute=4))}
    api = api_of({"m": Chorus()}, access=access, replicas=2)
    replies = [await call(api, "POST", CHAT, body(), bearer(ANN)) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]


async def test_limits_change_with_the_file_and_what_was_spent_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.http.auth.keys.LOOK_AGAIN_S", 0.0)
    paid = Paid()
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 30})
    statuses = [(await call(api, "POST", CHAT, body(), bearer(ANN))).status for _ in range(2)]
    keys_file(tmp_path, budget={"tokens": 70})
    statuses.append((await call(api, "POST", CHAT, body(), bearer(ANN))).status)
    assert statuses == [200, 429, 200]
    assert paid.queries[1].budget.tokens == 30


async def test_web_pages_are_refused_unless_they_are_named() -> None:
    page = {"origin": "https://chat.example"}
    bare = api_of({"m": Chorus()})
    refused = await call(bare, "POST", CHAT, body(), page)
    assert said(refused) == (403, "invalid_request_error", "origin_not_allowed")
    assert "access-control-allow-origin" not in refused.headers
    asking = page | {"access-control-request-method": "POST"}
    assert (await call(bare, "OPTIONS", CHAT, headers=asking)).status == 403
    named = api_of({"m": Chorus()}, allow_origins=("https://chat.example",))
    reply = await call(named, "POST", CHAT, body(), page)
    assert reply.headers["access-control-allow-origin"] == "https://chat.example"
    assert (await call(named, "OPTIONS", CHAT, headers=asking)).status == 200
    other = await call(named, "POST", CHAT, body(), {"origin": "https://evil.example"})
    assert other.status == 403


async def test_a_page_that_is_named_asks_first_without_a_key_and_then_with_one(
    tmp_path: Path,
) -> None:
    access = {"keys_file": str(keys_file(tmp_path))}
    api = api_of({"m": Chorus()}, access=access, allow_origins=("*",))
    page = {"origin": "https://chat.example"}
    asking = page | {"access-control-request-method": "POST"}
    asking["access-control-request-headers"] = "authorization,content-type"
    allowed = await call(api, "OPTIONS", CHAT, headers=asking)
    assert allowed.status == 200
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert (await call(api, "POST", CHAT, body(), page)).status == 401
    assert (await call(api, "POST", CHAT, body(), page | bearer(ANN))).status == 200


def test_a_server_on_loopback_is_called_by_its_own_name_only() -> None:
    import httpx2

    with served(api_of({"m": Chorus()})) as url:
        assert httpx2.get(f"{url}/v1/models").status_code == 200
        rebound = httpx2.get(f"{url}/v1/models", headers={"host": "evil.example"})
        assert rebound.status_code == 403
        assert rebound.json()["error"]["code"] == "host_not_allowed"
        told = httpx2.get(f"{url}/ready", headers={"host": "evil.example"})
        assert told.json() == {"status": "ready"}, "no names"
        assert "models" in httpx2.get(f"{url}/ready").json()


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    import socket

    with served(api_of({"m": Endless()}, body_timeout_s=0.3)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{{"
            slow.sendall(head.encode())
            reply = b""
            while piece := slow.recv(4096):  # until the server closes the connection
                reply += piece
    assert reply.startswith(b"HTTP/1.1 408 ") and b'"code":"body_too_slow"' in reply


def test_an_endpoint_whose_keys_cannot_be_read_is_not_built(tmp_path: Path) -> None:
    from runtime.errors import ConfigError

    access = {"keys_file": str(tmp_path / "none.yaml")}
    with pytest.raises(ConfigError, match="cannot read the keys"):
        build_api(GatewayConfig.model_validate({"access": access}), {"m": Chorus()})


QUESTION = "zebra-quagga-okapi?"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("method", ["sweetspan", "specfuse", "gac", "single", "fixed-route"])
async def test_without_text_in_traces_no_text_is_left_anywhere(
    method: str, stream: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trace = {"folder": str(tmp_path / "t"), "store_text": False}
    whole = animals(e={"type": method}) | {"trace": trace}
    if method == "single":
        whole["ensembles"]["e"]["members"] = ["cat"]
    access = {"keys_file": str(keys_file(tmp_path))}
    whole["gateway"] = {"access": access}
    stack = LocalStack(AppConfig.model_validate(whole))
    try:
        asked = {"messages": [{"role": "user", "content": QUESTION}], "model": "e", "n": 2}
        asked |= {"ensemble": {"trace": "full"}, "stream": stream, "temperature": 0}
        reply = await call(stack.api(), "POST", CHAT, asked, bearer(ANN))
        assert b" sat" in reply.content or b" ran" in reply.content
        api = stack.api()
        reply = await call(api, "POST", CHAT, asked, bearer(ANN))
        id = reply.headers["x-ensemble-trace-id"]
        shown = await call(api, "GET", f"/v1/traces/{id}", headers=bearer(ANN))
    finally:
        await stack.close()
    assert shown.status == 200 and shown.json()["ensemble"]["choices"][1]["spans"]
    rows = pq.read_table(tmp_path / "t").to_pylist()
    assert len(rows) == 4 and {row["caller"] for row in rows} == {"ann"}
    left = json.dumps(rows, default=str) + shown.content.decode() + caplog.text
    for word in ("zebra", " the cat", " the dog", " sat", " ran"):
        assert word not in left
