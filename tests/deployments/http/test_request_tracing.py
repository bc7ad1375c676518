"""Whose request it is: at the gateway, in its traces, and from there on."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from opentelemetry.trace import StatusCode

from runtime.errors import QuorumLost
from runtime.observability.logs import logging_to
from tests.support.http.ensembles import Chorus, Loading, api_of, body, call
from tests.support.local_stack import animals, running
from tests.support.observability.otel_spans import facts, named, own_id, parent, recorded

CHAT = "/v1/chat/completions"
CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SWEET = {"type": "sweetspan", "span_words": 1}
MINE = {"x-request-id": "mine"}


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_line_parquet_and_trace_map_the_clients_id_to_ours(tmp_path: Path) -> None:
    config = animals(e=SWEET) | {"trace": {"folder": str(tmp_path)}}
    stream = io.StringIO()
    async with running(config) as stack:
        api = stack.api()
        with logging_to(stream, "json"):
            reply = await call(api, "POST", CHAT, body(model="e"), headers=MINE)
        trace_id = reply.headers["x-ensemble-trace-id"]
        result = (await call(api, "GET", f"/v1/traces/{trace_id}")).json()
    [row] = pq.read_table(tmp_path).to_pylist()
    [line] = lines(stream)
    for known in (row, line):
        assert (known["trace_id"], known["request_id"]) == (trace_id, "mine")
    assert (result["id"], result["request_id"]) == (trace_id, "mine")


async def test_a_request_without_an_id_gets_one_that_the_log_knows() -> None:
    stream = io.StringIO()
    async with running(animals(e=SWEET)) as stack:
        with logging_to(stream, "json"):
            reply = await call(stack.api(), "POST", CHAT, body(model="e"))
    [line] = lines(stream)
    assert line["request_id"] == reply.headers["x-request-id"]


async def test_choices_have_trace_ids_of_their_own_and_one_request_id() -> None:
    stream = io.StringIO()
    async with running(animals(e=SWEET)) as stack:
        with logging_to(stream, "json"):
            reply = await call(stack.api(), "POST", CHAT, body(model="e", n=2), headers=MINE)
    trace_id = reply.headers["x-ensemble-trace-id"]
    assert {line["trace_id"] for line in lines(stream)} == {trace_id, f"{trace_id}-1"}
    assert {line["request_id"] for line in lines(stream)} == {"mine"}


async def test_a_refused_request_leaves_a_line_without_what_was_sent() -> None:
    stream = io.StringIO()
    with logging_to(stream, "json"):
        bad = body("secret words", model="secret model")
        reply = await call(api_of({"m": Chorus(), "o": Chorus()}), "POST", CHAT, bad, headers=MINE)
    [line] = lines(stream)
    assert (line["status"], line["request_id"]) == (reply.status, "mine")
    assert line["code"] == reply.json()["error"]["code"] == "model_not_found"
    assert line["message"].startswith("refused ") and line["levelname"] == "INFO"
    assert "secret" not in stream.getvalue()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_gateways_activity_holds_the_answers(stream: bool) -> None:
    with recorded() as spans:
        async with running(animals(e=SWEET)) as stack:
            params = body(model="e", n=2, stream=stream)
            headers = MINE | {"traceparent": CLIENT}
            reply = await call(stack.api(), "POST", CHAT, params, headers=headers)
            await call(stack.api(), "GET", "/v1/models")
    [server] = named(spans, f"POST {CHAT}")
    result = facts(server)
    assert parent(server) == int(CLIENT.split("-")[2], 16)
    assert result["http.response.status_code"] == 200 and result["http.route"] == CHAT
    assert result["orchestrion.trace_id"] == reply.headers["x-ensemble-trace-id"]
    assert result["orchestrion.request_id"] == "mine"
    assert (result["gen_ai.request.choice.count"], result["gen_ai.request.stream"]) == (2, stream)
    answers = named(spans, "chat e")
    assert {parent(answer) for answer in answers} == {own_id(server)} and len(answers) == 2
    # A stream is written while its reply is sent, so the reply ends last.
    assert all((answer.end_time or 0) <= (server.end_time or 0) for answer in answers)
    assert not named(spans, "GET /v1/models")


async def test_a_refusal_is_reported_by_the_gateways_activity() -> None:
    with recorded() as spans:
        await call(api_of({"m": Chorus()}), "POST", CHAT, {"messages": "secret"})
    [server] = named(spans, f"POST {CHAT}")
    assert facts(server)["http.response.status_code"] == 400
    assert facts(server)["orchestrion.error"] == "invalid_value"
    assert "error.type" not in facts(server) and "secret" not in server.to_json()


async def test_a_reply_with_a_fault_of_ours_is_an_error_of_the_activity() -> None:
    with recorded() as spans:
        await call(api_of({"m": Loading(QuorumLost(1, {"ann": "loading"}))}), "POST", CHAT, body())
    [server] = named(spans, f"POST {CHAT}")
    assert facts(server)["error.type"] == str(facts(server)["http.response.status_code"]) == "503"
    assert server.status.status_code is StatusCode.ERROR


async def test_a_fault_of_the_program_is_logged_with_the_requests_id() -> None:
    class Broken(Chorus):
        async def card(self) -> dict[str, Any]:
            raise ZeroDivisionError

    stream = io.StringIO()
    with logging_to(stream, "json"):
        reply = await call(api_of({"m": Broken()}), "POST", CHAT, body(), headers=MINE)
    assert reply.status == 500
    assert [line["levelname"] for line in lines(stream)] == ["ERROR"]
    assert "mine" in stream.getvalue() and "ZeroDivisionError" in stream.getvalue()
    assert logging.getLogger("deployments").level == logging.NOTSET
