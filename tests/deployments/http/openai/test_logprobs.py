"""Replies with the probabilities of their tokens, whole and streamed, as the openai package reads
them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from deployments.config.app_config import AppConfig
from deployments.http.openai.logprobs import (
    PendingTokens,
    PlacedToken,
    chat,
    completion,
    place_tokens,
)
from deployments.launch.in_process import LocalStack
from runtime.types.spans import Span, TokenChoice
from tests.support.http.ensembles import Chorus, api_of, body, call, served
from tests.support.http.openapi_conformance import assert_no_extras
from tests.support.local_stack import animals

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = [{"role": "user", "content": "Who?"}]


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    config = animals(
        pets={"type": "sweetspan", "span_words": 1}, slowly={"type": "single", "chunk_tokens": 1}
    )
    config["members"]["echo"] = {"engine": {"type": "echo"}}
    stack = LocalStack(AppConfig.model_validate(config))
    with served(stack.api()) as url, OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        yield client.with_options(max_retries=0)
    asyncio.run(stack.close())


def answered(client: OpenAI, model: str = "cat", **more: Any) -> Any:
    request = {"model": model, "messages": ASK, "logprobs": True, "temperature": 0, **more}
    return client.chat.completions.create(**request)


def entries(choice: Any) -> list[Any]:
    return choice.logprobs.content if choice.logprobs else []


def test_a_chat_reply_reports_each_tokens_logprob_and_alternatives(client: OpenAI) -> None:
    choice = answered(client, top_logprobs=2).choices[0]
    assert choice.message.content == " the cat sat."
    assert [entry.token for entry in entries(choice)] == [" the", " cat", " sat", "."]
    cat = entries(choice)[1]
    assert cat.bytes == list(b" cat") and cat.logprob == pytest.approx(math.log(0.6), abs=1e-5)
    assert [(top.token, round(top.logprob, 3)) for top in cat.top_logprobs] == [
        (" cat", round(math.log(0.6), 3)),
        (" dog", round(math.log(0.4), 3)),
    ]
    assert choice.logprobs.refusal is None


def test_without_top_logprobs_no_alternatives_are_reported(client: OpenAI) -> None:
    assert [entry.top_logprobs for entry in entries(answered(client).choices[0])] == [[]] * 4
    assert answered(client, logprobs=False, top_logprobs=0).choices[0].logprobs is None


@pytest.mark.parametrize("model", ["cat", "slowly", "echo"])
@pytest.mark.parametrize(
    "more",
    [{}, {"stop": "t s"}, {"stop": " sat.x"}, {"max_tokens": 3}, {"temperature": 1, "n": 3}],
    ids=str,
)
def test_a_stream_reports_the_same_tokens_each_with_its_text(
    client: OpenAI, model: str, more: dict[str, Any]
) -> None:
    request = {"top_logprobs": 3, "seed": 5, **more}
    if model == "echo":
        request["messages"] = [{"role": "user", "content": "naïve 漢字 t sat 😀 end"}]
    whole = answered(client, model, **request)
    result: dict[int, list[Any]] = {choice.index: [] for choice in whole.choices}
    for chunk in answered(client, model, stream=True, **request):
        [choice] = chunk.choices
        result[choice.index] += entries(choice)
        if model != "cat" and not more:  # nothing is held back: text and tokens keep in step
            spelled = b"".join(bytes(entry.bytes) for entry in entries(choice))
            assert spelled.decode() == (choice.delta.content or "")
    for choice in whole.choices:
        assert result[choice.index] == entries(choice)
        spelled = b"".join(bytes(entry.bytes) for entry in entries(choice))
        assert choice.message.content.startswith(spelled.decode())


def test_tokens_within_a_character_have_its_bytes(client: OpenAI) -> None:
    request = [{"role": "user", "content": "é😀"}]
    choice = answered(client, "echo", messages=request).choices[0]
    assert [entry.token for entry in entries(choice)] == ["\ufffd"] * 6
    assert bytes(b for entry in entries(choice) for b in entry.bytes).decode() == "é😀"


def test_what_a_stop_string_or_the_limit_cuts_is_not_reported(client: OpenAI) -> None:
    choice = answered(client, stop="t s").choices[0]
    assert choice.message.content == " the ca"
    assert [entry.token for entry in entries(choice)] == [" the"]
    choice = answered(client, max_tokens=2).choices[0]
    assert [entry.token for entry in entries(choice)] == [" the", " cat"]


def test_tokens_wait_with_text_that_may_become_a_stop_string(client: OpenAI) -> None:
    seen = [
        (chunk.choices[0].delta.content or "", [e.token for e in entries(chunk.choices[0])])
        for chunk in answered(client, "slowly", stop="at sat on", stream=True)
    ]
    text = [piece for piece in seen if piece[0]]
    assert text == [
        (" the", [" the"]),
        (" c", []),
        ("at sat.", [" cat", " sat", "."]),
    ]


def test_the_stream_helper_gathers_the_tokens(client: OpenAI) -> None:
    whole = answered(client, top_logprobs=1).choices[0]
    with client.chat.completions.stream(
        model="cat", messages=ASK, logprobs=True, top_logprobs=1, temperature=0
    ) as stream:
        for _ in stream:
            pass
        final = stream.current_completion_snapshot
    assert final.choices[0].logprobs.content == whole.logprobs.content


def test_completions_have_the_older_shape(client: OpenAI) -> None:
    request = {"model": "cat", "prompt": " the", "temperature": 0}
    choice = client.completions.create(**request, logprobs=2).choices[0]
    result = choice.logprobs
    assert choice.text == " cat sat."
    assert result.tokens == [" cat", " sat", "."] and result.text_offset == [0, 4, 8]
    assert result.token_logprobs == pytest.approx([math.log(0.6), math.log(0.8), 0], abs=1e-5)
    assert list(result.top_logprobs[0]) == [" cat", " dog"]
    assert result.top_logprobs[0][" cat"] == result.token_logprobs[0]
    none = client.completions.create(**request, logprobs=0).choices[0].logprobs
    assert none.top_logprobs == [
        {t: p} for t, p in zip(none.tokens, none.token_logprobs, strict=True)
    ]
    assert client.completions.create(**request).choices[0].logprobs is None


def test_completions_stream_the_same_tokens(client: OpenAI) -> None:
    request = {"model": "slowly", "prompt": [" the", " dog"], "temperature": 0}
    whole = client.completions.create(**request, logprobs=3)
    result = {index: {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
            for index in range(2)}  # fmt: skip
    for chunk in client.completions.create(**request, logprobs=3, stream=True):
        [choice] = chunk.choices
        for key, values in result[choice.index].items():
            values += getattr(choice.logprobs, key) if choice.logprobs else []
    assert [choice.logprobs.model_dump() for choice in whole.choices] == list(result.values())


@pytest.mark.parametrize("stream", [False, True])
def test_replies_with_logprobs_hold_openais_fields_alone(client: OpenAI, stream: bool) -> None:
    reply = answered(
        client, top_logprobs=1, stream=stream, extra_body={"ensemble": {"trace": "none"}}
    )
    form = ChatCompletionChunk if stream else ChatCompletion
    for item in list(reply) if stream else [reply]:
        assert_no_extras(form.model_validate(item.model_dump(exclude_unset=True), strict=True))


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"logprobs": True}, "logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": 2}, "logprobs"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs"),
        (TEXT, {"logprobs": 0}, "logprobs"),
        (TEXT, {"logprobs": 1, "echo": True}, "echo"),
    ],
)
async def test_methods_without_token_probabilities_say_why(
    path: str, fields: dict[str, Any], param: str
) -> None:
    config = AppConfig.model_validate(animals(pets={"type": "sweetspan"}))
    stack = LocalStack(config)
    request = body() if path == CHAT else {"prompt": " the"}
    for api, reason in (
        (stack.api(), "chooses between whole pieces of text"),
        (api_of({"pets": Chorus()}), "several authors"),
    ):
        reply = await call(api, "POST", path, {**request, "model": "pets", **fields})
        error = reply.json()["error"]
        assert (reply.status, error["code"]) == (400, "unsupported_parameter")
        assert error["param"] == param and reason in error["message"]
    await stack.close()


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        (CHAT, {"logprobs": 3}, "logprobs"),
        (CHAT, {"top_logprobs": 3}, "top_logprobs"),
        (TEXT, {"logprobs": 6}, "logprobs"),
        (TEXT, {"logprobs": -1}, "logprobs"),
        (TEXT, {"logprobs": True}, "logprobs"),
        (TEXT, {"top_logprobs": 1}, "top_logprobs"),
        (CHAT, {"echo": True}, "echo"),
    ],
)
async def test_wishes_beyond_openais_are_named(
    path: str, fields: dict[str, Any], param: str
) -> None:
    stack = LocalStack(AppConfig.model_validate(animals()))
    request = body() if path == CHAT else {"prompt": " the"}
    reply = await call(stack.api(), "POST", path, {**request, "model": "cat", **fields})
    assert reply.status == 400 and reply.json()["error"]["param"] == param
    await stack.close()


def test_a_probability_of_zero_is_very_unlikely() -> None:
    token = TokenChoice(b"x", -math.inf, ((b"y", 0.0), (b"z", -math.inf)))
    entry = chat([PlacedToken(0, token)])["content"][0]
    assert entry["logprob"] == -9999.0
    assert [top["logprob"] for top in entry["top_logprobs"]] == [0.0, -9999.0]
    result = completion([PlacedToken(0, token)])
    assert result["token_logprobs"] == [-9999.0]
    assert result["top_logprobs"] == [{"y": 0.0, "z": -9999.0, "x": -9999.0}]


def test_of_tokens_that_read_alike_the_best_is_reported() -> None:
    token = TokenChoice(b"\xe2", -2.0, ((b"\xf0", -0.5), (b"\xe2", -2.0)))
    assert completion([PlacedToken(0, token)])["top_logprobs"] == [{"\ufffd": -0.5}]


def test_waiting_tokens_are_reported_once_and_with_their_last_character() -> None:
    waiting = PendingTokens()
    pieces = (b"a\xc3", b"\xa9", b"bc", b"")
    tokens = tuple(TokenChoice(piece, -1.0) for piece in pieces)
    waiting.add(Span("aébc", "cat", 0, tokens=tokens, final=True))
    assert waiting.due(1) == []
    assert waiting.due(2) == [PlacedToken(0, tokens[0]), PlacedToken(1, tokens[1])]
    assert waiting.due(3) == []
    assert waiting.due(4) == [PlacedToken(2, tokens[2])]
    assert waiting.due(9) == [] and waiting.end == tokens[3]


@pytest.mark.parametrize(
    ("pieces", "text", "places"),
    [
        ([b"The", b" cat"], "The cat", [0, 3]),
        ([b" The", b" cat"], "The cat", [0, 3]),
        ([b"", b"user", b"\n", b"", b"hi"], "<|u|>user\n<|e|>hi", [0, 5, 9, 10, 15]),
        ([b"\xe2", b"\x82", b"\xac", b"!"], "€!", [0, 0, 0, 1]),
        ([b"", b"x"], "x", [0, 0]),
        ([b" a", b" b", b" a"], "a b a", [0, 1, 3]),
        ([b"", b" a", b" a"], "<s> a a", [0, 3, 5]),
        ([b"", b" a", b" a"], "<s>a a", [0, 3, 4]),
    ],
)
def test_offsets_point_into_the_prompt(pieces: list[bytes], text: str, places: list[int]) -> None:
    result = place_tokens([TokenChoice(piece, -1.0) for piece in pieces], text)
    assert [at for at, _ in result] == places
