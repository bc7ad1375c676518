"""What cannot be served is refused in OpenAI's error shape, and nothing is dropped in silence."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.http.ensembles import Chorus, Reply, api_of, body, call

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def said(error: Reply, status: int = 400) -> tuple[str | None, str | None]:
    """(code, param) of an error reply."""
    assert error.status == status, error.content
    result = error.json()["error"]
    assert set(result) == {"message", "type", "param", "code"}
    assert result["message"] and result["type"] == "invalid_request_error"
    assert error.headers["x-request-id"] and error.headers["content-type"] == "application/json"
    return result["code"], result["param"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logprobs", True),
        ("top_logprobs", 3),
        ("echo", True),
        ("logit_bias", {"50256": -100}),
        ("response_format", {"type": "json_object"}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "auto"),
        ("functions", [{"name": "f"}]),
        ("suffix", "the end"),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("best_of", 3),
    ],
)
async def test_fields_that_no_method_can_honour_are_refused(field: str, value: Any) -> None:
    ensemble = Chorus()
    reply = await call(api_of({"m": ensemble}), "POST", CHAT, body(**{field: value}))
    assert said(reply) == ("unsupported_parameter", field)
    assert ensemble.queries == []


async def test_values_that_ask_for_nothing_pass() -> None:
    nothing = {
        "logprobs": False, "top_logprobs": None, "echo": False, "logit_bias": {}, "tools": [],
        "response_format": {"type": "text"}, "tool_choice": "none", "suffix": None, "n": None,
        "temperature": None, "top_p": None, "max_tokens": None, "stop": None, "seed": None,
        "stream": None, "stream_options": None, "ensemble": None, "best_of": 1, "user": None,
    }  # fmt: skip
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, body(**nothing))
    assert reply.status == 200
    assert reply.json()["ensemble"]["ignored_params"] == []


async def test_what_has_no_effect_is_reported() -> None:
    params = {"top_k": 5, "user": "me", "presence_penalty": 0, "metadata": {"a": 1}}
    params["stream_options"] = {"include_usage": True}
    params["messages"] = [{"role": "user", "content": "hi", "name": "Bo", "refusal": None}]
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, body(**params))
    result = reply.json()["ensemble"]["ignored_params"]
    expected = {"top_k", "user", "presence_penalty", "metadata", "stream_options"}
    assert set(result) == expected | {"messages[].name"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "1"),
        ("top_p", 0),
        ("top_p", 1.01),
        ("n", 0),
        ("n", 9),
        ("n", True),
        ("n", 1.5),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_completion_tokens", 0),
        ("max_tokens", 10**40),
        ("seed", 2**64),
        ("seed", 0.5),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", 3),
        ("stop", [3]),
        ("stream", "yes"),
        ("stream_options", []),
        ("model", 3),
        ("messages", []),
        ("messages", None),
        ("messages", "hello"),
    ],
)
async def test_values_out_of_range_are_named(field: str, value: Any) -> None:
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, body(**{field: value}))
    code, param = said(reply)
    assert code in ("invalid_value", "invalid_type") and param == field


@pytest.mark.parametrize("seed", [0, -(2**63), 2**63, 2**64 - 1])
async def test_any_64_bit_seed_is_taken(seed: int) -> None:
    ensemble = Chorus()
    reply = await call(api_of({"m": ensemble}), "POST", CHAT, body(seed=seed, n=2))
    assert reply.status == 200
    assert all(0 <= query.seed < 2**63 for query in ensemble.queries)


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"method": "sweetspan"}, "unsupported_parameter", "ensemble.method"),
        ({"weights": {"ann": 1}}, "unsupported_parameter", "ensemble.weights"),
        ({"dry_run": True}, "unsupported_parameter", "ensemble.dry_run"),
        ({"budget": {"max_members": 1}}, "invalid_value", "ensemble.budget.max_members"),
        ({"budget": {"calls": 0}}, "invalid_value", "ensemble.budget.calls"),
        ({"budget": {"seconds": float("inf")}}, "invalid_value", "ensemble.budget.seconds"),
        ({"members": []}, "invalid_value", "ensemble.members"),
        ({"members": ["ann", "zed"]}, "invalid_value", "ensemble.members"),
        ({"members": ["ann", "ann"]}, "invalid_value", "ensemble.members"),
        ({"trace": "all"}, "invalid_value", "ensemble.trace"),
        ([], "invalid_value", "ensemble"),
    ],
)
async def test_the_ensemble_object_is_strict(options: Any, code: str, param: str) -> None:
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, body(ensemble=options))
    result, where = said(reply)
    assert result == code and where is not None and where.startswith(param)


async def test_an_unsupported_ensemble_key_is_answered_with_those_that_are() -> None:
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, body(ensemble={"judge": "ann"}))
    assert "members, budget, threshold, trace" in reply.json()["error"]["message"]


async def test_options_reach_the_ensemble() -> None:
    ensemble = Chorus()
    budget = {"calls": 3, "max_tokens": 50, "cost": 0.5, "max_seconds": 2}
    options = {"members": ["bob"], "budget": budget, "trace": "full"}
    sampling = {"temperature": 0, "top_p": 0.5, "stop": "x", "ignore_eos": True}
    limits = {"max_tokens": 9, "max_completion_tokens": 5}
    params = body(ensemble=options, **sampling, **limits)
    reply = await call(api_of({"m": ensemble}), "POST", CHAT, params)
    assert reply.status == 200
    query = ensemble.queries[0]
    assert (query.members, query.trace) == (("bob",), "full")
    result = query.budget
    assert (result.calls, result.tokens, result.cost, result.seconds) == (3, 50, 0.5, 2)
    assert (query.temperature, query.top_p, query.stop) == (0, 0.5, ("x",))
    assert (query.max_tokens, query.ignore_eos) == (5, True)


async def test_an_absent_temperature_is_left_to_the_method() -> None:
    ensemble = Chorus()
    await call(api_of({"m": ensemble}), "POST", CHAT, body())
    assert (ensemble.queries[0].temperature, ensemble.queries[0].top_p) == (None, None)


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("plain", "plain"),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([], ""),
    ],
)
async def test_content_is_a_string_or_text_parts_or_null(content: Any, read: str) -> None:
    ensemble = Chorus()
    turns = [{"role": "developer", "content": content}, {"role": "tool", "content": "x"}]
    reply = await call(api_of({"m": ensemble}), "POST", CHAT, {"messages": turns})
    assert reply.status == 200
    first, second = ensemble.queries[0].messages
    assert (first.role, first.content) == ("system", read)
    assert second.role == "tool"


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": ["text"]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ],
)
async def test_content_that_is_not_text_is_refused(turn: Any) -> None:
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, {"messages": [turn]})
    code, param = said(reply)
    assert code == "unsupported_content" and param is not None and param.startswith("messages[0].")


async def test_an_unknown_role_is_refused() -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "robot", "content": "hi"}]
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, {"messages": turns})
    assert said(reply) == ("invalid_value", "messages[1].role")


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"a":' + b"9" * 9999],
)
@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_a_body_that_is_no_json_object_is_refused(path: str, payload: bytes) -> None:
    reply = await call(api_of({"m": Chorus()}), "POST", path, payload)
    assert said(reply) == ("invalid_json", None)


async def test_a_missing_field_is_named() -> None:
    api = api_of({"m": Chorus()})
    assert said(await call(api, "POST", CHAT, {})) == ("missing_required_parameter", "messages")
    assert said(await call(api, "POST", TEXT, {})) == ("missing_required_parameter", "prompt")


@pytest.mark.parametrize(
    "prompt", ["", [], [""], ["a", ""], [[]], [1, "a"], [[1], "a"], [-1], [True], [1.5], None, {}]
)
async def test_a_prompt_has_one_of_four_forms(prompt: Any) -> None:
    reply = await call(api_of({"m": Chorus()}), "POST", TEXT, {"prompt": prompt})
    code, param = said(reply)
    assert code in ("invalid_value", "invalid_type") and param == "prompt"


async def test_more_choices_than_a_request_may_have_are_refused() -> None:
    ensemble = Chorus()
    api = api_of({"m": ensemble})
    assert said(await call(api, "POST", TEXT, {"prompt": ["a"] * 129}))[1] == "prompt"
    assert said(await call(api, "POST", TEXT, {"prompt": ["a"] * 65, "n": 2}))[1] == "prompt"
    assert ensemble.queries == []


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_beyond_the_limit_is_refused(announced: bool) -> None:
    api = api_of({"m": Chorus()}, max_body_bytes=2000)
    payload, headers = (b"", {"content-length": "3000"}) if announced else (b" " * 3000, {})
    reply = await call(api, "POST", CHAT, payload, headers)
    assert said(reply, 413) == ("body_too_large", None)


async def test_lone_surrogates_become_replacement_characters() -> None:
    ensemble = Chorus()
    content = rb'"\ud800 \ud83d\ude00 \\ud800 \udc00\ud83d"'
    payload = b'{"messages":[{"role":"user","content":' + content + b'}],"user":"\\udfff"}'
    reply = await call(api_of({"m": ensemble}), "POST", CHAT, payload)
    assert reply.status == 200
    assert ensemble.queries[0].messages[0].content == "\ufffd 😀 \\ud800 \ufffd\ufffd"


async def test_routes_and_methods_that_do_not_exist_are_reported() -> None:
    api = api_of({"m": Chorus()})
    assert said(await call(api, "POST", "/v1/embeddings", {}), 404) == ("route_not_found", None)
    assert said(await call(api, "GET", "/"), 404) == ("route_not_found", None)
    wrong = await call(api, "GET", CHAT)
    assert said(wrong, 405) == ("method_not_allowed", None)
    assert wrong.headers["allow"] == "POST"


@pytest.mark.parametrize("depth", ["1", "7", "x", "-1"])
async def test_an_ensemble_may_not_call_itself(depth: str) -> None:
    headers = {"x-ensemble-depth": depth}
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, body(), headers)
    assert said(reply)[0] == "recursive_ensemble"
    outermost = {"x-ensemble-depth": "0"}
    reply = await call(api_of({"m": Chorus()}), "POST", CHAT, body(), outermost)
    assert reply.status == 200
