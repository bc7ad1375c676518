"""Listing, readiness, headers and traces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deployments.http.gateway import build_api
from runtime.config.gateway import GatewayConfig
from runtime.errors import MemberFailed, QuorumLost
from tests.support.http.ensembles import Chorus, Loading, api_of, body, call

CHAT = "/v1/chat/completions"
STARTING = Loading(QuorumLost(1, {"ann": "loading weights"}))


async def test_models_are_listed_in_the_order_given_with_their_cards() -> None:
    api = api_of({"ensemble/b": Chorus(), "a": Chorus(("a",))})
    listed = (await call(api, "GET", "/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["ensemble/b", "a"]
    for model in listed["data"]:
        assert model["object"] == "model" and model["owned_by"] and model["created"] > 0
    assert listed["data"][0]["ensemble"]["method"] == "turns"
    alone = await call(api, "GET", "/v1/models/ensemble/b")
    assert alone.json() == listed["data"][0]


async def test_a_model_that_loads_is_listed_with_its_state() -> None:
    listed = (await call(api_of({"m": STARTING}), "GET", "/v1/models")).json()["data"]
    assert "loading weights" in listed[0]["ensemble"]["state"]


async def test_the_only_model_need_not_be_named_but_one_of_several_must() -> None:
    only = await call(api_of({"m": Chorus()}), "POST", CHAT, body())
    assert only.json()["model"] == "m"
    several = await call(api_of({"m": Chorus(), "o": Chorus()}), "POST", CHAT, body())
    assert several.status == 400
    assert several.json()["error"]["message"].endswith("m, o")


async def test_live_and_ready_are_different_things() -> None:
    waiting = api_of({"up": Chorus(), "m": STARTING})
    assert (await call(waiting, "GET", "/health")).status == 200
    reply = await call(waiting, "GET", "/ready")
    assert reply.status == 503 and reply.headers["retry-after"]
    result = reply.json()["error"]
    assert result["type"] == "ensemble_unavailable"
    assert result["members"]["up"] == "ready" and result["members"]["m"].startswith("not ready")
    ready = await call(api_of({"up": Chorus()}), "GET", "/ready")
    assert (ready.status, ready.json()["status"]) == (200, "ready")
    assert (await call(waiting, "HEAD", "/health")).status == 200


async def test_a_model_that_dies_after_it_was_ready_is_not_ready() -> None:
    class Mortal(Chorus):
        dead = False

        async def card(self) -> dict[str, Any]:
            if self.dead:
                raise MemberFailed("ann", "gone")
            return await super().card()

    mortal = Mortal()
    api = api_of({"m": mortal})
    assert (await call(api, "GET", "/ready")).status == 200
    mortal.dead = True
    assert (await call(api, "GET", "/ready")).status == 503


async def test_a_card_that_never_comes_counts_as_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Chorus):
        async def card(self) -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("deployments.http.gateway.CARD_TIMEOUT_S", 0.05)
    api = api_of({"up": Chorus(), "m": Hanging()})
    ready = await call(api, "GET", "/ready")
    params = await call(api, "POST", CHAT, body(model="m"))
    for reply in (ready, params):
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert reply.json()["error"]["members"]["m"].startswith("loading")
    assert (await call(api, "POST", CHAT, body(model="up"))).status == 200


async def test_early_facts_are_in_headers_that_browsers_may_read() -> None:
    sent = {"x-request-id": "mine-1", "origin": "http://page.example"}
    api = api_of({"m": Chorus()}, allow_origins=("http://page.example",))
    reply = await call(api, "POST", CHAT, body(), sent)
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.headers["x-ensemble-trace-id"] == reply.json()["ensemble"]["trace_id"]
    assert reply.headers["x-ensemble-method"] == "turns"
    assert reply.headers["x-ensemble-model"] == "ann,bob"
    exposed = reply.headers["access-control-expose-headers"]
    assert {"x-request-id", "x-ensemble-trace-id"} <= set(exposed.split(", "))


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "café"])
async def test_a_request_id_that_is_no_plain_word_is_replaced(given: str) -> None:
    api = api_of({"m": Chorus()})
    reply = await call(api, "GET", "/health", headers={"x-request-id": given})
    assert reply.headers["x-request-id"].startswith("req_")


async def test_behind_a_server_that_writes_request_ids_none_is_written_twice() -> None:
    api = build_api(GatewayConfig(), {"m": Chorus()}, request_ids=False)
    for path in ("/health", "/nowhere"):
        reply = await call(api, "GET", path, headers={"x-request-id": "the-proxys"})
        assert "x-request-id" not in reply.headers


async def test_the_newest_traces_are_kept_and_the_oldest_go() -> None:
    api = api_of({"m": Chorus()}, keep=2)
    ids = []
    for _ in range(3):
        reply = await call(api, "POST", CHAT, body(ensemble={"trace": "none"}, n=2))
        assert "ensemble" not in reply.json()
        ids.append(reply.headers["x-ensemble-trace-id"])
    found = [(await call(api, "GET", f"/v1/traces/{id}")).status for id in ids]
    assert found == [404, 200, 200]
    for alias in (f"chatcmpl-{ids[2]}", f"{ids[2]}-1"):
        trace = (await call(api, "GET", f"/v1/traces/{alias}")).json()
        assert trace["id"] == ids[2] and trace["object"] == "ensemble.trace"
        assert len(trace["ensemble"]["choices"]) == 2


async def test_numbers_that_json_lacks_become_null() -> None:
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, body(ensemble={"trace": "full"}))
    assert reply.json()["ensemble"]["full"]["rounds"] == [{"scores": {"ann": None}}]


async def test_a_model_that_lacks_an_ability_says_so() -> None:
    class Plain(Chorus):
        async def card(self) -> dict[str, Any]:
            return {**await super().card(), "supports": {"n": False, "stream": False}}

    for params, param in (({"n": 2}, "n"), ({"stream": True}, "stream")):
        reply = await call(api_of({"m": Plain()}), "POST", CHAT, body(**params))
        assert (reply.status, reply.json()["error"]["param"]) == (400, param)


async def test_many_who_ask_whether_all_is_ready_at_one_time_cost_one_question() -> None:
    class Counted(Chorus):
        params = 0

        async def card(self) -> dict[str, Any]:
            self.params += 1
            await asyncio.sleep(0.05)
            return await super().card()

    counted = Counted()
    api = api_of({"m": counted})
    replies = await asyncio.gather(*(call(api, "GET", "/ready") for _ in range(50)))
    assert {reply.status for reply in replies} == {200} and counted.params == 1
    await call(api, "GET", "/ready")
    assert counted.params == 2
