"""Each fault has one status, one OpenAI error and one advice about repeating."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from deployments.http.errors import fault_of
from runtime.errors import (
    BadRequest,
    ContextOverflow,
    EngineFault,
    MemberFailed,
    OrchestrionError,
    Overloaded,
    QuorumLost,
    Unsupported,
)
from tests.support.http.ensembles import Faulty, Loading, Mute, api_of, body, call, served

CHAT = "/v1/chat/completions"
LOST = QuorumLost(2, {"ann": "no reply in 2.0 s", "bob": "dead"})
STARTING = QuorumLost(1, {"ann": "loading weights"})
BUG = ZeroDivisionError("the secret inside")

FAULTS: dict[str, tuple[Exception, type[openai.APIStatusError], int, str, str, bool]] = {
    "bad": (BadRequest("no", "stop"), openai.BadRequestError, 400, "invalid_request_error",
            "invalid_value", True),
    "context": (ContextOverflow("ann", 900, 512), openai.BadRequestError, 400,
                "invalid_request_error", "context_length_exceeded", True),
    "full": (Overloaded("the queue", 3.2), openai.RateLimitError, 429, "rate_limit_error",
             "overloaded", True),
    "lost": (LOST, openai.InternalServerError, 503, "ensemble_unavailable", "quorum_lost", False),
    "starting": (STARTING, openai.InternalServerError, 503, "ensemble_unavailable", "quorum_lost",
                 True),
    "failed": (MemberFailed("ann", "no reply"), openai.InternalServerError, 503,
               "ensemble_unavailable", "member_failed", False),
    "lacking": (Unsupported("ann", "embed"), openai.InternalServerError, 500, "server_error",
                "misconfigured", False),
    "bug": (BUG, openai.InternalServerError, 500, "server_error", "internal_error", True),
}  # fmt: skip


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    models = {name: Faulty(fault[0]) for name, fault in FAULTS.items()}
    models |= {f"late-{name}": Faulty(fault[0], spans=2) for name, fault in FAULTS.items()}
    with served(api_of(models)) as url, OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        yield client.with_options(max_retries=0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_before_the_first_word_has_its_own_status(
    client: OpenAI, name: str, stream: bool
) -> None:
    fault, raised, status, type_, code, repeatable = FAULTS[name]
    with pytest.raises(raised) as caught:
        client.chat.completions.create(model=name, stream=stream, **body())
    error = caught.value
    assert (error.status_code, error.type, error.code) == (status, type_, code)
    assert (error.response.headers.get("x-should-retry") != "false") == repeatable
    assert error.request_id and error.response.headers["x-ensemble-trace-id"]
    assert "secret" not in error.message
    if isinstance(fault, OrchestrionError):
        assert str(fault) in error.message


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_middle_ends_the_stream_with_an_error(client: OpenAI, name: str) -> None:
    _, _, _, type_, code, _ = FAULTS[name]
    stream = client.chat.completions.create(model=f"late-{name}", stream=True, **body())
    text = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert text == "word0 word1 "
    assert (caught.value.type, caught.value.code) == (type_, code)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_middle_of_a_whole_answer_has_its_status(client: OpenAI, name: str) -> None:
    with pytest.raises(FAULTS[name][1]) as caught:
        client.chat.completions.create(model=f"late-{name}", **body())
    assert caught.value.status_code == FAULTS[name][2]


def test_lost_members_are_listed_with_their_states(client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="lost", **body())
    result: Any = caught.value.body
    assert result["members"] == LOST.states


@pytest.mark.parametrize(("seconds", "header"), [(3.2, "4"), (0.0, "1"), (9999.0, "120")])
def test_a_full_queue_says_when_to_come_back(seconds: float, header: str) -> None:
    assert fault_of(Overloaded("the queue", seconds)).headers["retry-after"] == header


def test_a_fault_that_came_wrapped_from_another_process_is_unwrapped() -> None:
    class Remote(QuorumLost):
        def __init__(self, cause: Exception) -> None:
            self.cause = cause

        def __str__(self) -> str:
            return "Traceback: secret"

    fault = fault_of(Remote(LOST))
    assert fault.message == str(LOST) and fault.details == {"members": LOST.states}


async def test_an_error_event_is_the_last_one() -> None:
    api = api_of({"m": Faulty(EngineFault("broken"), spans=1)})
    reply = await call(api, "POST", CHAT, body(stream=True))
    assert reply.status == 200
    assert b"[DONE]" not in reply.content
    assert reply.content.split(b"\n\n")[-2].startswith(b'data: {"error":{"message":"broken"')


@pytest.mark.parametrize("spans", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_is_logged_and_not_shown(
    caplog: pytest.LogCaptureFixture, spans: int, stream: bool
) -> None:
    with caplog.at_level(logging.ERROR):
        reply = await call(api_of({"m": Faulty(BUG, spans)}), "POST", CHAT, body(stream=stream))
    assert "secret" not in reply.content.decode()
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [BUG]


async def test_an_answer_without_an_end_is_a_fault() -> None:
    class Cut(Faulty):
        async def answer(self, query: Any) -> Any:
            async for event in super().answer(query):
                yield event
                return

    reply = await call(api_of({"m": Cut(BUG, spans=2)}), "POST", CHAT, body())
    assert (reply.status, reply.json()["error"]["code"]) == (500, "engine_fault")


async def test_one_failing_choice_ends_all_of_them() -> None:
    class Second(Mute):
        async def answer(self, query: Any) -> Any:
            source = (
                super().answer(query) if query.id.endswith("-1") else Faulty(LOST).answer(query)
            )
            async for event in source:
                yield event

    ensemble = Second()
    reply = await call(api_of({"m": ensemble}), "POST", CHAT, body(n=2))
    assert reply.status == 503
    assert ensemble.closed.is_set()


@pytest.mark.parametrize("fault", [STARTING, EngineFault("no replica"), MemberFailed("ann", "new")])
async def test_a_model_whose_members_load_is_unavailable(fault: Exception) -> None:
    reply = await call(api_of({"m": Loading(fault)}), "POST", CHAT, body())
    assert reply.status == 503
    assert reply.headers["retry-after"] == "5"


async def test_a_failed_request_leaves_its_error_as_its_trace() -> None:
    api = api_of({"m": Faulty(LOST, spans=1)})
    for stream in (False, True):
        reply = await call(api, "POST", CHAT, body(stream=stream))
        trace = await call(api, "GET", f"/v1/traces/{reply.headers['x-ensemble-trace-id']}")
        assert trace.json()["error"]["code"] == "quorum_lost"
