"""What every ensemble owes the openai package. ``contract`` says what is served; further sets of
models join as parameters of that fixture."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from tests.support.http.ensembles import WORDS, Chorus, api_of, served
from tests.support.http.openapi_conformance import assert_no_extras

ASK = [{"role": "user", "content": "Say something long about France."}]
SAME = ("method", "level", "spans", "steps", "stop_reason", "degraded", "warnings", "seed")
"""Summary keys that are equal for equal answers, whatever the members' caches hold."""


@dataclass(frozen=True)
class Contract:
    """A running endpoint, and what the tests must know of it. With seed 7, ``model`` answers
    ``ASK`` in three spans or more."""

    url: str
    model: str
    other_model: str
    members: tuple[str, ...]
    token_ids: tuple[int, ...]
    token_text: str
    """What ``token_ids`` say."""


def tale(member: str) -> dict[str, Any]:
    """A table model that tells of its favourite animal at some length."""
    other = "dog" if member == "cat" else "cat"
    table = {
        "": {" the": 1},
        " the": {f" {member}": 3, f" {other}": 2},
        " cat": {" sat": 1},
        " dog": {" ran": 1},
        " sat": {" at": 1},
        " ran": {" at": 1},
        " at": {" home": 1},
        " home": {".": 1},
        ".": {"<eos>": 1},
    }
    words = [" the", " cat", " dog", " sat", " ran", " at", " home", "."]
    return {"engine": {"type": "table", "vocabulary": words, "table": table}}


@pytest.fixture(scope="module", params=["doubles", "coordinators"])
def contract(request: pytest.FixtureRequest) -> Iterator[Contract]:
    if request.param == "doubles":
        models = {"ensemble/chorus": Chorus(), "ann": Chorus(("ann",))}
        with served(api_of(models)) as url:
            text = f"{WORDS[0]} {WORDS[3]}"
            yield Contract(url, "ensemble/chorus", "ann", ("ann", "bob"), (0, 3), text)
        return
    method = {"type": "sweetspan", "span_words": 1, "members": ["cat", "dog"]}
    stack = LocalStack(
        AppConfig.model_validate(
            {
                "members": {"cat": tale("cat"), "dog": tale("dog")},
                "ensembles": {"ensemble/pets": method},
            }
        )
    )
    with served(stack.api()) as url:
        yield Contract(url, "ensemble/pets", "cat", ("cat", "dog"), (0, 1), " the cat")
    asyncio.run(stack.close())


@pytest.fixture
def client(contract: Contract) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{contract.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def chat(client: OpenAI, contract: Contract, **more: Any) -> Any:
    return client.chat.completions.create(
        **{"model": contract.model, "messages": ASK, "seed": 7, **more}
    )


def lasting(summary: Any) -> Any:
    return {"keys": set(summary), **{key: summary[key] for key in SAME}}


def gathered(chunks: Any) -> tuple[str, str, Any, Any]:
    """Text, finish reason, usage and final summary of a one-choice stream."""
    text, reason, usage, summary = "", None, None, None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.finish_reason is not None:
                assert reason is None, "a choice ends once"
                reason, summary = choice.finish_reason, chunk.model_extra.get("ensemble")
    return text, reason, usage, summary


def test_an_answer_has_every_field_that_clients_read(client: OpenAI, contract: Contract) -> None:
    answer = chat(client, contract)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == contract.model
    assert answer.id == f"chatcmpl-{answer.model_extra['ensemble']['trace_id']}"
    assert answer.system_fingerprint.startswith("ens_")
    assert choice.index == 0 and choice.finish_reason in ("stop", "length")
    assert choice.message.role == "assistant" and choice.message.content
    assert {"logprobs", "index", "finish_reason"} <= choice.model_fields_set
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    assert answer._request_id


def test_the_summary_says_who_wrote_which_characters(client: OpenAI, contract: Contract) -> None:
    answer = chat(client, contract)
    summary = answer.model_extra["ensemble"]
    spans = summary["spans"]
    assert spans[0]["start"] == 0 and spans[-1]["end"] == len(answer.choices[0].message.content)
    assert all(a["end"] == b["start"] for a, b in zip(spans, spans[1:], strict=False))
    assert {span["model"] for span in spans} <= set(contract.members)
    assert summary["latency_ms"]["total"] >= summary["latency_ms"]["ttft"] >= 0
    assert summary["ignored_params"] == [] and summary["seed"] == 7


def test_a_stream_says_the_same_as_a_whole_answer(client: OpenAI, contract: Contract) -> None:
    answer = chat(client, contract)
    stream = chat(client, contract, stream=True, stream_options={"include_usage": True})
    text, reason, usage, summary = gathered(stream)
    assert text == answer.choices[0].message.content
    assert reason == answer.choices[0].finish_reason
    assert usage == answer.usage
    assert lasting(summary) == lasting(answer.model_extra["ensemble"])


def test_a_stream_has_one_identity_and_opens_with_the_role(
    client: OpenAI, contract: Contract
) -> None:
    chunks = list(chat(client, contract, stream=True))
    assert len({(c.id, c.created, c.model, c.object, c.system_fingerprint) for c in chunks}) == 1
    assert chunks[0].object == "chat.completion.chunk"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(len(chunk.choices) == 1 for chunk in chunks), "naive clients read choices[0]"
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    written = [c for c in chunks if c.choices[0].delta.content]
    authors = {chunk.model_extra["ensemble"]["model"] for chunk in written}
    assert authors <= set(contract.members)


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(
    client: OpenAI, contract: Contract
) -> None:
    *others, last = chat(client, contract, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage.total_tokens > 0
    assert all(c.usage is None and "usage" in c.model_fields_set for c in others)


def test_the_stream_helper_accumulates(client: OpenAI, contract: Contract) -> None:
    whole = chat(client, contract).choices[0].message.content
    with client.chat.completions.stream(model=contract.model, messages=ASK, seed=7) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.current_completion_snapshot
    assert "".join(deltas) == final.choices[0].message.content == whole


def test_n_answers_are_those_of_consecutive_seeds(client: OpenAI, contract: Contract) -> None:
    both = chat(client, contract, n=2)
    single = [chat(client, contract, seed=7 + i) for i in range(2)]
    assert [choice.index for choice in both.choices] == [0, 1]
    assert [c.message.content for c in both.choices] == [
        answer.choices[0].message.content for answer in single
    ]
    assert both.usage.prompt_tokens == single[0].usage.prompt_tokens
    assert both.usage.completion_tokens == sum(a.usage.completion_tokens for a in single)
    parts = both.model_extra["ensemble"]["choices"]
    assert [part["spans"] for part in parts] == [a.ensemble["spans"] for a in single]
    calls = [part["usage"]["model_calls"] for part in parts]
    assert both.model_extra["ensemble"]["usage"]["model_calls"] == sum(calls)


def test_n_answers_stream_by_index(client: OpenAI, contract: Contract) -> None:
    whole = chat(client, contract, n=2)
    texts, ends = {0: "", 1: ""}, {}
    for chunk in chat(client, contract, n=2, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert texts == {c.index: c.message.content for c in whole.choices}
    assert ends == {c.index: c.finish_reason for c in whole.choices}


def test_a_stop_string_across_a_span_border_ends_the_text_before_it(
    client: OpenAI, contract: Contract
) -> None:
    answer = chat(client, contract)
    text, spans = answer.choices[0].message.content, answer.ensemble["spans"]
    border = spans[1]["end"]
    stop = text[border - 3 : border + 3]
    cut = chat(client, contract, stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    streamed, reason, *_ = gathered(chat(client, contract, stop=stop, stream=True))
    assert (streamed, reason) == (cut.choices[0].message.content, "stop")


@pytest.mark.parametrize("stop", [[], None])
def test_no_stop_strings_may_be_said_in_two_ways(
    client: OpenAI, contract: Contract, stop: Any
) -> None:
    plain = chat(client, contract).choices[0].message.content
    assert chat(client, contract, stop=stop).choices[0].message.content == plain


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_ends_the_answer_for_its_length(
    client: OpenAI, contract: Contract, name: str
) -> None:
    answer = chat(client, contract, **{name: 4})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens <= 4


def test_a_seed_that_was_not_given_is_told_and_can_be_used_again(
    client: OpenAI, contract: Contract
) -> None:
    first = chat(client, contract, seed=None)
    again = chat(client, contract, seed=first.ensemble["seed"])
    assert again.choices[0].message.content == first.choices[0].message.content


def test_models_are_listed_and_retrieved(client: OpenAI, contract: Contract) -> None:
    listed = client.models.list().data
    assert listed[0].id == contract.model
    assert contract.other_model in [model.id for model in listed]
    model = client.models.retrieve(contract.model)
    assert (model.id, model.object) == (contract.model, "model")
    assert model.created and model.owned_by
    assert model.model_extra["ensemble"]["members"] == list(contract.members)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such/model")


def test_an_unknown_model_is_not_found(client: OpenAI, contract: Contract) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, contract, model="nobody")
    assert caught.value.code == "model_not_found" and contract.model in caught.value.message
    assert caught.value.request_id


def test_what_cannot_be_done_is_refused(client: OpenAI, contract: Contract) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, contract, logprobs=True)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "logprobs")


def test_a_subset_of_the_members_can_be_asked(client: OpenAI, contract: Contract) -> None:
    answer = chat(client, contract, extra_body={"ensemble": {"members": [contract.members[1]]}})
    assert {span["model"] for span in answer.ensemble["spans"]} == {contract.members[1]}


@pytest.mark.parametrize("stream", [False, True])
def test_without_trace_the_reply_is_openais_alone(
    client: OpenAI, contract: Contract, stream: bool
) -> None:
    extra = {"ensemble": {"trace": "none"}}
    reply = chat(client, contract, stream=stream, extra_body=extra)
    for item in list(reply) if stream else [reply]:
        form = ChatCompletionChunk if stream else ChatCompletion
        strict = form.model_validate(item.model_dump(exclude_unset=True), strict=True)
        assert_no_extras(strict)


def test_the_full_trace_shows_more_than_the_summary(client: OpenAI, contract: Contract) -> None:
    full = chat(client, contract, extra_body={"ensemble": {"trace": "full"}}).ensemble
    summary = chat(client, contract).ensemble
    assert "full" not in summary
    assert set(full) == {*summary, "full"}


def test_four_forms_of_prompt_are_completed(client: OpenAI, contract: Contract) -> None:
    def complete(prompt: Any, n: int = 1) -> Completion:
        return client.completions.create(model=contract.model, prompt=prompt, seed=7, n=n)

    text, ids = contract.token_text, list(contract.token_ids)
    one = complete(text)
    assert one.object == "text_completion" and one.id.startswith("cmpl-")
    written = one.choices[0].text
    assert written
    assert [c.text for c in complete([text, text]).choices] == [written] * 2
    assert complete(ids).choices[0].text == written
    assert [c.text for c in complete([ids, ids]).choices] == [written] * 2
    twice = complete(text, n=2)
    batch = complete([text, text], n=2)
    assert [c.index for c in batch.choices] == [0, 1, 2, 3]
    assert [c.text for c in batch.choices] == [c.text for c in twice.choices] * 2
    assert batch.usage.prompt_tokens == 2 * one.usage.prompt_tokens


def test_completions_stream_the_same_text(client: OpenAI, contract: Contract) -> None:
    asked = {"model": contract.model, "prompt": contract.token_text, "seed": 7}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert {chunk.object for chunk in chunks} == {"text_completion"}


async def test_streams_side_by_side_do_not_disturb_each_other(contract: Contract) -> None:
    async with AsyncOpenAI(base_url=f"{contract.url}/v1", api_key="any", max_retries=0) as client:

        async def whole(seed: int) -> str:
            asked = {"model": contract.model, "messages": ASK, "seed": seed}
            return (await client.chat.completions.create(**asked)).choices[0].message.content

        async def streamed(seed: int) -> str:
            asked = {"model": contract.model, "messages": ASK, "seed": seed, "stream": True}
            chunks = await client.chat.completions.create(**asked)
            return "".join([c.choices[0].delta.content or "" async for c in chunks])

        seeds = range(8)
        gather_or_cancel = await asyncio.gather(*(streamed(seed) for seed in seeds))
        assert gather_or_cancel == [await whole(seed) for seed in seeds]


def test_the_trace_can_be_fetched_by_the_id_of_the_reply(
    client: OpenAI, contract: Contract
) -> None:
    answer = chat(client, contract)
    raw = client.chat.completions.with_raw_response.create(model=contract.model, messages=ASK)
    for id in (answer.id, raw.headers["x-ensemble-trace-id"]):
        with urllib.request.urlopen(f"{contract.url}/v1/traces/{id}") as reply:
            assert json.load(reply)["ensemble"]["method"] == raw.headers["x-ensemble-method"]


def test_curl_shows_plain_server_sent_events(contract: Contract) -> None:
    asked = json.dumps({"model": contract.model, "messages": ASK, "stream": True, "seed": 7})
    command = ["curl", "-sSNi", f"{contract.url}/v1/chat/completions", "-d", asked]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    head, _, sent = output.partition(b"\r\n\r\n")
    assert b"200 OK" in head.splitlines()[0]
    lowered = head.lower()
    assert b"content-type: text/event-stream; charset=utf-8" in lowered
    assert b"cache-control: no-cache" in lowered and b"x-accel-buffering: no" in lowered
    events = sent.removesuffix(b"\n\n").split(b"\n\n")
    assert events.pop() == b"data: [DONE]"
    text = "".join(json.loads(e[6:])["choices"][0]["delta"].get("content", "") for e in events)
    with OpenAI(base_url=f"{contract.url}/v1", api_key="any") as client:
        assert text == chat(client, contract).choices[0].message.content
