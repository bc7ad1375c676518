"""Bad and strange requests against every family of ensembles: each is answered, none with a fault
of the server, and well-formed requests beside them get the very answers they get alone."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.http.ensembles import Reply, call
from tests.support.http.openapi_conformance import conforms
from tests.support.http.request_bodies import BYTES, GOOD, written
from tests.support.local_stack import running
from tests.support.models.method_families import MODELS, WINDOW, families

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
EXAMPLES = int(os.environ.get("ORCHESTRION_FUZZ", "80"))
PATIENCE_S = 20.0
CALM = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="ORCHESTRION_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)

PIECES = st.sampled_from(
    ("", "\x00", "\x1b[2J", "\r\n", "\u2028", "\u202e", "\u200f", "\ufeff", "\ufffe", "😀", "🏳️‍🌈",
     "e\u0301" * 40, "\U0010ffff", "\ud800", "\udfff\ud83d", "<eos>", "<|im_end|>", "</s>",
     "{{ 7*7 }}", "{% for x in y %}", "{question} {previous}", "#", "ки", "\\ud800",
     "data: [DONE]\n\n", "the cat",
     " " * 300, "a" * 1000, "\n" * 200, "漢字" * 30)
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=30), max_size=4).map("".join)
"""Control characters, lone surrogates, bidi marks, template code, and prompts beyond the window."""
NUMBERS = st.sampled_from(
    (0, -0.0, 1, -1, 0.5, 2, 1e-300, 5e-324, float("nan"), float("inf"), float("-inf"), 2**31,
     2**63, -(2**63), 2**64, 10**30, 10**4000, 1e308, True, None, "1", [], {})
)  # fmt: skip
STOPS = (
    TEXTS
    | st.lists(TEXTS, max_size=6)
    | st.integers(1, 1000).map(lambda n: [str(i) for i in range(n)])
    | st.integers(1, 9000).map(lambda n: ["x" * n])
    | st.sampled_from((" the", " cat", "t", ".", " ", ["he", " t"], [" dog ran", "dog"], None, 7))
)
ROLES = st.sampled_from(("user", "user", "assistant", "system", "developer", "tool", "robot", None))
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES, "content": TEXTS | st.sampled_from((None, [], 3))},
        optional={"name": TEXTS, "tool_calls": st.sampled_from(([], None, [1]))},
    ),
    max_size=4,
)
NESTED = st.integers(1, 400).map(lambda depth: json.loads("[" * depth + "]" * depth))
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(
        ("temperature", "top_p", "n", "seed", "max_tokens", "max_completion_tokens", "priority",
         "logprobs", "top_logprobs", "stream", "ignore_eos", "echo", "best_of"),
        NUMBERS,
    ),
    "stop": STOPS,
    "user": TEXTS | NESTED,
    "stream": st.booleans(),
    "ensemble": st.fixed_dictionaries(
        {},
        optional={
            "members": st.lists(st.sampled_from(("cat", "dog", "kitten", "\x00")), max_size=3),
            "threshold": NUMBERS,
            "trace": st.sampled_from(("none", "summary", "full", "all")),
            "budget": st.dictionaries(
                st.sampled_from(("calls", "tokens", "cost", "seconds", "max_calls", "x")),
                NUMBERS,
                max_size=2,
            ),
        },
    ),
}  # fmt: skip
MORE = st.fixed_dictionaries({}, optional=PARAMETERS)
NAMED = st.sampled_from(MODELS)
IDS = st.lists(st.integers(-1, 2**31), max_size=5) | st.lists(st.integers(0, 20), max_size=300)


class Endpoint:
    """The whole stack with one event loop for all requests of this file."""

    def __init__(self, runner: asyncio.Runner, api: Any) -> None:
        self.runner, self.api = runner, api

    async def answer(
        self, path: str, payload: bytes, method: str = "POST", **headers: str
    ) -> Reply:
        """A reply in time and as described; no fault of the server, streamed ones included."""
        asking = call(
            self.api, method, path, payload, {k.replace("_", "-"): v for k, v in headers.items()}
        )
        reply = await asyncio.wait_for(asking, PATIENCE_S)
        assert reply.status < 500, reply.content
        conforms(method, path, reply)
        return reply

    def __call__(self, path: str, payload: bytes, **headers: str) -> Reply:
        return self.runner.run(self.answer(path, payload, **headers))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with asyncio.Runner() as runner:
        stack = running(families())
        try:
            yield Endpoint(runner, runner.run(stack.__aenter__()).api())
        finally:
            runner.run(stack.__aexit__(None, None, None))


def test_any_messages_and_parameters_are_answered(endpoint: Endpoint) -> None:
    @CALM
    @given(NAMED, TURNS, MORE)
    def ask(model: str, turns: list[Any], more: dict[str, Any]) -> None:
        endpoint(CHAT, written({"model": model, "messages": turns, **more}))

    ask()


def test_any_prompt_is_answered(endpoint: Endpoint) -> None:
    @CALM
    @given(NAMED, TEXTS | st.lists(TEXTS, max_size=3) | IDS | st.lists(IDS, max_size=2), MORE)
    def ask(model: str, prompt: Any, more: dict[str, Any]) -> None:
        endpoint(TEXT, written({"model": model, "prompt": prompt, **more}))

    ask()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_a_prompt_far_over_the_window_is_refused_at_once(
    endpoint: Endpoint, model: str, stream: bool
) -> None:
    for text in ("x" * 900_000, "the cat " * 100_000, "\x00" * 150_000, "😀" * (WINDOW // 2)):
        turns = [{"role": "user", "content": text}]
        reply = endpoint(CHAT, written({"model": model, "messages": turns, "stream": stream}))
        assert reply.status == 400, reply.content[:300]
        assert reply.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_bytes_that_are_no_request_are_refused(endpoint: Endpoint, path: str) -> None:
    @CALM
    @given(st.binary(max_size=300))
    def ask(payload: bytes) -> None:
        assert 400 <= endpoint(path, payload).status < 500

    ask()
    for payload in BYTES:
        reply = endpoint(path, payload)
        assert 400 <= reply.status < 500, payload[:80]
        assert len(reply.content) < 5000


def test_of_a_key_that_stands_twice_the_last_counts(endpoint: Endpoint) -> None:
    payload = GOOD.replace(b'"model": "cat"', b'"model": "nobody", "model": "cat"')
    assert endpoint(CHAT, payload).json()["model"] == "cat"


def test_names_without_effect_are_reported_within_bounds(endpoint: Endpoint) -> None:
    more = {f"{number}{'x' * 200}": 1 for number in range(2000)}
    reply = endpoint(CHAT, written({**json.loads(GOOD), **more}))
    outcome_of = reply.json()["ensemble"]["ignored_params"]
    assert outcome_of[-1] == "… and 1936 more" and all(len(name) <= 101 for name in outcome_of)


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/xml", "multipart/form-data; boundary=x", "\x00", "a" * 9000],
)
def test_a_body_is_read_as_json_whatever_its_type_says(endpoint: Endpoint, kind: str) -> None:
    assert endpoint(CHAT, GOOD, content_type=kind).status == 200


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "²", "9" * 5000, ""])
def test_a_length_that_is_none_is_refused(endpoint: Endpoint, length: str) -> None:
    assert endpoint(CHAT, GOOD, content_length=length).status in (400, 413)


HEADER = st.text(st.characters(max_codepoint=255), max_size=200)


def test_headers_of_the_caller_never_become_headers_of_the_reply(endpoint: Endpoint) -> None:
    @CALM
    @given(HEADER, HEADER, HEADER)
    @example("ok\r\nset-cookie: a=b", "0", "x\r\n\r\n<html>")
    def ask(request_id: str, depth: str, model: str) -> None:
        given_headers = {"x_request_id": request_id, "x_ensemble_depth": depth}
        reply = endpoint(CHAT, GOOD, **given_headers, x_ensemble_model=model)
        assert "set-cookie" not in reply.headers
        assert all("\r" not in value and "\n" not in value for value in reply.headers.values())
        assert reply.status == (200 if depth == "0" else 400)

    ask()


async def in_pieces(api: Any, pieces: list[bytes], leaves: bool) -> Reply:
    """A body in pieces, after which the client may leave before it is whole."""
    reply, left = Reply(), list(reversed(pieces))

    async def receive() -> Any:
        if left:
            piece = left.pop()
            return {"type": "http.request", "body": piece, "more_body": bool(left) or leaves}
        if not leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        reply.status = message.get("status", reply.status)
        reply.content += message.get("body", b"")

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST"}
    scope |= {"path": CHAT, "raw_path": CHAT.encode(), "query_string": b"", "root_path": ""}
    scope |= {"scheme": "http", "headers": [], "client": ("test", 1), "server": ("test", 80)}
    await api(scope, receive, send)
    return reply


def test_a_body_may_come_in_pieces_and_break_off(endpoint: Endpoint) -> None:
    for size in (1, 7, 40, 1000):
        pieces = [GOOD[at : at + size] for at in range(0, len(GOOD), size)]
        whole = endpoint.runner.run(in_pieces(endpoint.api, pieces, leaves=False))
        assert whole.status == 200 and b"sat." in whole.content
        cut = endpoint.runner.run(in_pieces(endpoint.api, pieces[:-1], leaves=True))
        assert cut.status == 499


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "", "\x00"])
def test_other_methods_are_refused(endpoint: Endpoint, method: str) -> None:
    reply = endpoint.runner.run(call(endpoint.api, method, CHAT, GOOD))
    assert reply.status == 405 and reply.headers["allow"] == "POST"


def outcome_of(reply: Reply) -> str:
    """What must not depend on others: all but the reply's name, its times, and how far drafts
    reached, which all requests learn together."""
    whole = reply.json()
    kept = {key: whole[key] for key in ("model", "choices", "usage", "system_fingerprint")}
    for summary in whole["ensemble"]["choices"]:
        for key in ("stop_reason", "degraded", "warnings"):
            kept[f"{summary['index']} {key}"] = summary[key]
        if summary["level"] != "token":
            kept[f"{summary['index']} spans"] = summary["spans"]
    return json.dumps(kept)


HOSTILE = st.lists(
    st.builds(lambda m, t, more: (CHAT, written({"model": m, "messages": t, **more})), NAMED,
              TURNS, MORE)
    | st.builds(lambda m, p, more: (TEXT, written({"model": m, "prompt": p, **more})), NAMED,
                TEXTS | IDS, MORE)
    | st.sampled_from([(CHAT, payload) for payload in BYTES]),
    min_size=4,
    max_size=10,
)  # fmt: skip


def test_neighbours_of_bad_requests_get_the_very_answers_they_get_alone(
    endpoint: Endpoint,
) -> None:
    turns = [{"role": "user", "content": "Who sat?"}]
    drawing = {"seed": 11, "temperature": 1.0, "n": 2}
    params = [written({"model": model, "messages": turns, **drawing}) for model in MODELS]
    alone = [outcome_of(endpoint(CHAT, payload)) for payload in params]

    async def all_at_once(hostile: list[tuple[str, bytes]]) -> list[str]:
        bad = [asyncio.create_task(endpoint.answer(*request)) for request in hostile]
        good = await asyncio.gather(*(endpoint.answer(CHAT, payload) for payload in params))
        await asyncio.gather(*bad)
        return [outcome_of(reply) for reply in good]

    @settings(CALM, max_examples=max(EXAMPLES // 4, 5))
    @given(HOSTILE)
    def ask(hostile: list[tuple[str, bytes]]) -> None:
        assert endpoint.runner.run(all_at_once(hostile)) == alone

    ask()
