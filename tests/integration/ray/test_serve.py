"""The same wiring under Ray Serve, on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import APP, scrape_url
from tests.support.local_stack import animals, answers
from tests.support.observability.prometheus import samples, wait_for
from tests.support.serve import COUNT, NUMBERS, deployed, replica_pid

pytestmark = pytest.mark.ray

SWEET = {"type": "sweetspan", "span_words": 1}


def config() -> dict[str, Any]:
    slow = {"type": "slow", "engine": COUNT, "seconds": 0.03}
    whole = animals(sweet=SWEET, fuse={"type": "specfuse", "segment_tokens": 2, "temperature": 0})
    for name in ("one", "two"):
        whole["members"][name] = {"engine": slow, "timeout_s": 1.0}
    whole["members"]["patient"] = {"engine": slow}
    whole["ensembles"]["count"] = SWEET | {"members": ["one", "two"]}
    whole["ensembles"]["lonely"] = {"type": "single", "members": ["one"], "chunk_tokens": 1}
    whole["ensembles"]["calm"] = whole["ensembles"]["lonely"] | {"members": ["patient"]}
    for member in whole["members"].values():
        member["replica"] = {"num_cpus": 0.1}
    return whole


@pytest.fixture(scope="module")
def url(serve_port: int) -> Iterator[str]:
    with deployed(serve_port, AppConfig.model_validate(config())) as base_url:
        yield base_url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def chat(client: OpenAI, model: str, **more: Any) -> Any:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Who?"}], **more
    )


async def test_ray_serve_gives_the_same_answer_as_one_process(client: OpenAI) -> None:
    for model in ("sweet", "fuse"):
        served = chat(client, model)
        local = await answers(config(), model)
        assert served.choices[0].message.content == local.text
        assert served.model_extra["ensemble"]["method"] == local.summary["method"]


def test_logprobs_and_scores_travel_through_ray(client: OpenAI) -> None:
    requested: dict[str, Any] = {"model": "cat", "prompt": [0, 1], "temperature": 0, "logprobs": 1}
    choice = client.completions.create(**requested, echo=True, max_tokens=1).choices[0]
    assert (choice.text, choice.logprobs.tokens) == (" the cat sat", [" the", " cat", " sat"])
    assert choice.logprobs.token_logprobs[0] is None
    with pytest.raises(BadRequestError, match="gives no token a probability"):
        client.completions.create(**requested | {"model": "sweet"}, echo=True)


def test_ray_listens_on_loopback_only(url: str) -> None:
    """Ray's own processes; Serve's replicas open one gRPC port each that cannot be bound."""
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    assert scrape_url().startswith("http://127.0.0.1:")
    foreign = [
        connection.laddr
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip.removeprefix("::ffff:") not in ("127.0.0.1", "::")
    ]
    assert not foreign


def test_ensembles_and_members_are_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    ensembles = ["sweet", "fuse", "count", "lonely", "calm"]
    assert names == [*ensembles, "cat", "dog", "one", "two", "patient"]


def test_the_first_span_reaches_the_client_before_the_answer_is_complete(client: OpenAI) -> None:
    started = time.monotonic()
    first = last = 0.0
    for chunk in chat(client, "count", stream=True):
        if chunk.choices[0].delta.content:
            last = time.monotonic() - started
            first = first or last
    assert first < last / 4


async def test_calls_of_concurrent_requests_share_messages(url: str) -> None:
    from ray import serve

    from deployments.serving.names import ensemble_deployment

    handle = serve.get_deployment_handle(ensemble_deployment("sweet"), APP)
    before = await handle.stats.remote()
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        await asyncio.gather(
            *(
                client.chat.completions.create(
                    model="sweet", messages=[{"role": "user", "content": "Who?"}]
                )
                for _ in range(16)
            )
        )
    after = await handle.stats.remote()
    assert after["messages"] - before["messages"] < after["calls"] - before["calls"]


def test_prometheus_finds_what_an_ensemble_did_in_rays_metrics(client: OpenAI) -> None:
    result = chat(client, "fuse").model_extra["ensemble"]
    fuse = {"ensemble": "fuse", "application": APP}
    wait_for("ray_orchestrion_answers_total", 1, outcome="eos", **fuse)
    wait_for("ray_orchestrion_rounds_total", result["steps"], **fuse)
    wait_for("ray_orchestrion_answer_seconds_count", 1, **fuse)
    wait_for("ray_orchestrion_answers_in_progress", 0, most=0, **fuse)
    for member in result["members"]:
        own = fuse | {"member": member["model"]}
        wait_for("ray_orchestrion_member_calls_total", member["calls"], **own)
        wait_for("ray_orchestrion_member_call_seconds_count", member["calls"], **own)


def test_a_member_alone_has_metrics_of_its_own_and_so_has_its_replica(client: OpenAI) -> None:
    answer = chat(client, "dog")
    [result] = answer.model_extra["ensemble"]["members"]
    dog = {"ensemble": "dog", "deployment": "gateway"}
    visible = answer.usage.completion_tokens
    assert wait_for("ray_orchestrion_visible_tokens_total", visible, **dog) == visible
    dog["member"] = "dog"
    for name in ("calls", "prompt_tokens", "completion_tokens"):
        assert wait_for(f"ray_orchestrion_member_{name}_total", result[name], **dog) == result[name]
    replica = {"member": "dog", "deployment": "member-dog"}
    wait_for("ray_orchestrion_member_calls_in_progress", 0, most=0, **replica)


async def test_clients_that_leave_do_not_disturb_those_that_stay(url: str) -> None:
    """Their calls share messages; a message must not die with the request that began it."""

    async def one(client: AsyncOpenAI) -> Any:
        reply = await client.chat.completions.create(
            model="calm", messages=[{"role": "user", "content": "Who?"}], seed=1
        )
        return reply

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        tasks = [asyncio.ensure_future(one(client)) for _ in range(10)]
        for leaving in tasks[::2]:
            await asyncio.sleep(0.15)
            leaving.cancel()
        for reply in await asyncio.gather(*tasks[1::2]):
            assert reply.choices[0].message.content == NUMBERS
            [member] = reply.model_extra["ensemble"]["members"]
            assert (member["status"], member["retries"]) == ("ok", 0)


def test_a_client_that_leaves_takes_its_calls_along(client: OpenAI) -> None:
    calm = {"ensemble": "calm", "application": APP}
    found = samples("ray_orchestrion_cancelled_calls_total")
    before = sum(s.value for s in found if calm.items() <= s.labels.items())
    with chat(client, "calm", stream=True, seed=9) as stream:
        next(chunk for chunk in stream if chunk.choices[0].delta.content)
    wait_for("ray_orchestrion_cancelled_calls_total", before + 1, **calm)
    wait_for("ray_orchestrion_answers_in_progress", 0, most=0, **calm)


def test_a_stream_goes_on_where_its_reader_was(client: OpenAI) -> None:
    requested: dict[str, Any] = {"stream": True, "extra_body": {"ensemble": {"resumable": True}}}
    text, place = "", ""
    with chat(client, "calm", **requested) as stream:
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            place = chunk.model_extra["ensemble"]["resume"]
            if text == " 1 2 3":
                break
    rest = chat(client, "calm", stream=True, extra_body={"ensemble": {"resume": place}})
    for chunk in rest:
        text += chunk.choices[0].delta.content or ""
    assert text == NUMBERS
    calm = {"ensemble": "calm", "cause": "client"}
    assert wait_for("ray_orchestrion_resumed_total", 1, **calm) == 1


def test_a_killed_member_is_dropped_and_the_answer_completes(client: OpenAI) -> None:
    stream = chat(client, "count", stream=True)
    text, summary = "", {}
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if text == " 1 2 3":
                os.kill(replica_pid("member-two"), signal.SIGKILL)
            if choice.finish_reason:
                summary = chunk.model_extra["ensemble"]
    assert text == NUMBERS
    two = next(member for member in summary["members"] if member["model"] == "two")
    # A new replica takes longer than the timeout: retried once, then dropped.
    assert two["retries"] == 1
    assert two["status"] == "dropped"
    assert summary["degraded"]


def test_a_killed_coordinator_is_replaced_in_the_middle_of_an_answer(client: OpenAI) -> None:
    stream = chat(client, "lonely", stream=True)
    text = ""
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if text == " 1 2 3":
                os.kill(replica_pid("ensemble-lonely"), signal.SIGKILL)
    assert text == NUMBERS
