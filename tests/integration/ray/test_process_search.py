"""Searches under Ray Serve: the judge as a deployment that batches, and a coordinator that dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import APP
from deployments.serving.names import ensemble_deployment, reward_deployment
from runtime.types.query import Message
from tests.support.local_stack import answers
from tests.support.models.maze import GOLD, maze
from tests.support.observability.prometheus import wait_for
from tests.support.serve import deployed, replica_pid

pytestmark = pytest.mark.ray

ASK: list[Any] = [{"role": "user", "content": "Which way?"}]
SECONDS = 0.2
JUDGE = "guide"


def config() -> dict[str, Any]:
    """Members "slow-a" and "slow-b" take their time, so that something can happen meanwhile."""
    whole = maze(search={}, ebs={"type": "ebs"})
    for name in ("a", "b"):
        engine = {"type": "slow", "engine": whole["members"][name]["engine"], "seconds": SECONDS}
        whole["members"][f"slow-{name}"] = {"engine": engine}
    slow = {"members": ["slow-a", "slow-b"]}
    whole["ensembles"]["slowly"] = whole["ensembles"]["search"] | slow
    # A name of its own, since Ray's metrics outlive an application.
    whole["reward_models"] = {JUDGE: whole["reward_models"]["prm"]}
    for ensemble in whole["ensembles"].values():
        ensemble["reward"] = JUDGE
    for served in (*whole["members"].values(), *whole["reward_models"].values()):
        served["replica"] = {"num_cpus": 0.1}
    return whole


@pytest.fixture(scope="module")
def url(serve_port: int) -> Iterator[str]:
    with deployed(serve_port, AppConfig.model_validate(config())) as base_url:
        yield base_url


async def test_ray_serve_searches_as_one_process_does(url: str) -> None:
    with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        for model in ("search", "ebs"):
            served = client.chat.completions.create(
                model=model, messages=ASK, seed=3, extra_body={"ensemble": {"trace": "full"}}
            )
            messages = (Message("user", "Which way?"),)
            local = await answers(config(), model, messages=messages, seed=3, trace="full")
            summary: Any = (served.model_extra or {})["ensemble"]
            assert served.choices[0].message.content == local.text == GOLD
            assert summary["full"]["state"] == local.summary["full"]["state"]
            assert summary["reward_model"]["calls"] == local.summary["reward_model"]["calls"] > 3


async def test_chains_of_many_requests_are_judged_together(url: str) -> None:
    from ray import serve

    handle = serve.get_deployment_handle(reward_deployment(JUDGE), APP)
    before = await handle.stats.remote()
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        requests = (
            client.chat.completions.create(model="search", messages=ASK, seed=seed)
            for seed in range(12)
        )
        replies = await asyncio.gather(*requests)
    assert {reply.choices[0].message.content for reply in replies} == {GOLD}
    after = await handle.stats.remote()
    chains = after["chains"] - before["chains"]
    judged: Any = [(reply.model_extra or {})["ensemble"]["reward_model"] for reply in replies]
    assert chains == sum(one["calls"] for one in judged)
    assert after["batches"] - before["batches"] < 0.8 * chains
    for name, counted in (("questions_total", "chains"), ("batch_seconds_count", "batches")):
        metric = f"ray_orchestrion_aide_{name}"
        assert wait_for(metric, after[counted], aide=JUDGE) == after[counted]


def test_a_search_survives_its_coordinator(url: str) -> None:
    text, summary, done = "", {}, []
    with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        stream = client.chat.completions.create(
            model="slowly",
            messages=ASK,
            stream=True,
            seed=3,
            extra_body={"ensemble": {"trace": "full"}},
        )
        for chunk in stream:
            result: Any = (chunk.model_extra or {}).get("ensemble") or {}
            if "progress" in result:
                done.append(result["progress"]["done"])
                if len(done) == 1:
                    os.kill(replica_pid(ensemble_deployment("slowly")), signal.SIGKILL)
            for choice in chunk.choices:
                text += choice.delta.content or ""
                if choice.finish_reason:
                    summary = result
    assert text == GOLD
    assert len(done) > 1 and done[1] > done[0], "it goes on from where it was"
    tree = summary["full"]["state"]["tree"]
    assert summary["full"]["state"]["iterations"] == sum(len(node["tried"]) for node in tree)
