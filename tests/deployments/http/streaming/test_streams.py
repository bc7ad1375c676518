"""Streams are live: words leave as they are accepted, and nobody writes for a client that left."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlparse

import pytest
from openai import AsyncOpenAI, OpenAI

from runtime.errors import EngineFault
from tests.support.http.ensembles import Chorus, Endless, Faulty, Mute, api_of, body, call, served

CHAT = "/v1/chat/completions"


@contextmanager
def asking(url: str, **more: Any) -> Iterator[http.client.HTTPResponse]:
    """The reply to a chat request, whose client leaves at the end of the block."""
    connection = http.client.HTTPConnection(urlparse(url).netloc, timeout=30)
    with closing(connection):
        connection.request("POST", CHAT, json.dumps(body(**more)))
        with connection.getresponse() as response:
            yield response


def test_words_arrive_while_the_answer_is_still_being_written() -> None:
    ensemble = Endless()
    with (
        served(api_of({"m": ensemble})) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        stream = client.chat.completions.create(model="m", stream=True, **body())
        texts = [next(stream).choices[0].delta.content for _ in range(4)]
        assert texts == ["", "la ", "la ", "la "]
        assert not ensemble.closed.is_set()
        stream.close()
        assert ensemble.closed.wait(10)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [Endless, Mute])
def test_a_client_that_leaves_stops_the_writing(kind: Callable[[], Endless], stream: bool) -> None:
    ensemble = kind()
    with served(api_of({"m": ensemble})) as url:
        connection = http.client.HTTPConnection(urlparse(url).netloc)
        with closing(connection):
            connection.request("POST", CHAT, json.dumps(body(stream=stream)))
            while not ensemble.written:
                assert not ensemble.closed.wait(0.01)
        assert ensemble.closed.wait(10)
        written = ensemble.written
        with asking(url, model="unknown") as later:
            assert later.status == 404
        assert ensemble.written == written


def test_an_async_client_that_leaves_stops_all_choices() -> None:
    ensemble = Chorus(pause=0.05)

    async def leave(url: str) -> None:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
            stream = await client.chat.completions.create(model="m", n=3, stream=True, **body())
            await anext(stream)
            await stream.close()
            async with asyncio.timeout(10):
                while ensemble.cancelled < 3:
                    await asyncio.sleep(0.01)

    with served(api_of({"m": ensemble})) as url:
        asyncio.run(leave(url))


def test_comments_keep_a_silent_stream_alive_and_disturb_no_client() -> None:
    api = api_of({"m": Chorus(pause=0.12)}, keep_alive_s=0.05)
    with served(api) as url, OpenAI(base_url=f"{url}/v1", api_key="k") as client:
        with asking(url, stream=True, seed=3, max_tokens=6) as response:
            raw = response.read()
        assert raw.count(b": keep-alive\n\n") >= 2
        params = body(seed=3, max_tokens=6)
        stream = client.chat.completions.create(model="m", stream=True, **params)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        whole = client.chat.completions.create(model="m", **params)
        assert streamed == whole.choices[0].message.content


async def test_who_hears_again_what_it_knows_is_kept_alive() -> None:
    """An answer that is written again arrives without pause, and gives its reader nothing yet."""
    api = api_of({"m": Chorus(pause=0.05)}, keep_alive_s=0.12)
    params = body(stream=True, seed=3, max_tokens=24)
    whole = await call(api, "POST", CHAT, params | {"ensemble": {"resumable": True}})
    assert b": keep-alive\n\n" not in whole.content
    last = whole.events()[-2]["ensemble"]["resume"]
    again = await call(api, "POST", CHAT, params | {"ensemble": {"resume": last}})
    before, _, _ = again.content.partition(b"data: ")
    assert before.count(b": keep-alive\n\n") >= 2


async def test_silence_beyond_the_keep_alive_opens_the_stream() -> None:
    class Pondering(Faulty):
        async def answer(self, query: Any) -> Any:
            await asyncio.sleep(0.1)
            async for event in super().answer(query):
                yield event

    fault = EngineFault("too late for a status")
    wait_for_replica = await call(api_of({"m": Pondering(fault)}), "POST", CHAT, body(stream=True))
    assert wait_for_replica.status == 500
    api = api_of({"m": Pondering(fault)}, keep_alive_s=0.02)
    hasty = await call(api, "POST", CHAT, body(stream=True))
    assert hasty.status == 200
    assert b": keep-alive\n\n" in hasty.content and b'data: {"error"' in hasty.content


def test_a_slow_reader_slows_the_writing_down() -> None:
    ensemble = Endless(pause=0, text="la " * 20_000)
    with served(api_of({"m": ensemble})) as url:
        with asking(url, stream=True) as response:
            before = -1
            while before != ensemble.written:  # until the buffers are full
                before = ensemble.written
                assert not ensemble.closed.wait(0.3)
            assert before < 2000
            for _ in range(400):
                response.readline()
            assert not ensemble.closed.wait(0.3)
            assert ensemble.written > before
        assert ensemble.closed.wait(10)


async def test_the_task_of_the_request_being_cancelled_stops_the_writing() -> None:
    for stream in (False, True):
        ensemble = Endless()
        request = asyncio.create_task(
            call(api_of({"m": ensemble}), "POST", CHAT, body(stream=stream))
        )
        while ensemble.written < 3:
            await asyncio.sleep(0.01)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert ensemble.closed.is_set()


async def test_an_answer_is_iterated_by_one_task() -> None:
    """Else the coordinator's timeouts and task groups would cancel a stranger."""
    tasks = set()

    class Watching(Chorus):
        async def answer(self, query: Any) -> Any:
            async with asyncio.timeout(30):
                async for event in super().answer(query):
                    tasks.add(asyncio.current_task())
                    yield event

    reply = await call(api_of({"m": Watching()}), "POST", CHAT, body(stream=True))
    assert reply.status == 200 and len(tasks) == 1


async def test_chunks_name_their_author_and_the_full_trace_its_scores() -> None:
    api = api_of({"m": Chorus()})

    async def origins(trace: str) -> list[Any]:
        reply = await call(api, "POST", CHAT, body(stream=True, ensemble={"trace": trace}))
        return [event.get("ensemble") for event in reply.events()]

    assert (await origins("summary"))[1] == {"model": "ann", "span": 0}
    assert (await origins("full"))[2] == {"model": "bob", "span": 1, "scores": {"bob": -0.5}}
    assert not any(await origins("none"))


async def test_text_that_breaks_lines_or_utf8_stays_on_its_line() -> None:
    text = "a\u2028b\x85c\nd\ud800e"
    api = api_of({"m": Faulty(EngineFault(text), spans=1)})
    reply = await call(api, "POST", CHAT, body(stream=True))
    last = reply.content.decode().removesuffix("\n\n").split("\n\n")[-1]
    assert len(last.splitlines()) == 1
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == text
