"""What every ensemble owes the openai package when it streams."""

from __future__ import annotations

import asyncio
import json
import subprocess

from openai import AsyncOpenAI, OpenAI

from tests.deployments.http.openai.contract import ASK, Contract, chat, gathered, lasting


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


def test_usage_comes_in_a_chunk_of_its_own_when_requested(
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


def test_completions_stream_the_same_text(client: OpenAI, contract: Contract) -> None:
    request = {"model": contract.model, "prompt": contract.token_text, "seed": 7}
    whole = client.completions.create(**request)
    chunks = list(client.completions.create(**request, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert {chunk.object for chunk in chunks} == {"text_completion"}


async def test_streams_side_by_side_do_not_disturb_each_other(contract: Contract) -> None:
    async with AsyncOpenAI(base_url=f"{contract.url}/v1", api_key="any", max_retries=0) as client:

        async def whole(seed: int) -> str:
            request = {"model": contract.model, "messages": ASK, "seed": seed}
            return (await client.chat.completions.create(**request)).choices[0].message.content

        async def streamed(seed: int) -> str:
            request = {"model": contract.model, "messages": ASK, "seed": seed, "stream": True}
            chunks = await client.chat.completions.create(**request)
            return "".join([c.choices[0].delta.content or "" async for c in chunks])

        seeds = range(8)
        answers = await asyncio.gather(*(streamed(seed) for seed in seeds))
        assert answers == [await whole(seed) for seed in seeds]


def test_curl_shows_plain_server_sent_events(contract: Contract) -> None:
    request = json.dumps({"model": contract.model, "messages": ASK, "stream": True, "seed": 7})
    command = ["curl", "-sSNi", f"{contract.url}/v1/chat/completions", "-d", request]
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
