"""Three nodes on loopback, one member on each, and nodes that die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from openai import OpenAI

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import APP
from tests.support.serve import COUNT, NUMBERS, free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NAMES = ("ann", "bob", "eve")
"""Members; each has its home on a node of its own, Ann's on the head."""
TIMEOUT_S = 30.0
"""Long, as for large models: nobody may wait for it twice when a node is lost."""


def config() -> dict[str, Any]:
    slow = {"type": "slow", "engine": COUNT, "seconds": 0.05}
    members = {
        name: {
            "engine": slow,
            "timeout_s": TIMEOUT_S,
            "replica": {"num_cpus": 0.1, "resources": {home(name): 0.01}},
        }
        for name in NAMES
    }
    three = {"members": list(NAMES), "quorum": 2}
    sweet = three | {"type": "sweetspan", "span_words": 1}
    fuse = three | {"type": "specfuse", "segment_tokens": 2, "temperature": 0}
    return {"members": members, "ensembles": {"sweet": sweet, "fuse": fuse}}


def home(member: str) -> str:
    return f"home_of_{member}"


class Nodes:
    """A head and workers, each with the resource that one member wants."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        quick = {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 4,
        }
        first = self._node(NAMES[0]) | {"_system_config": quick}
        self.cluster = Cluster(initialize_head=True, head_node_args=first)
        self.workers = {name: self.add(name) for name in NAMES[1:]}

    def add(self, member: str) -> Any:
        return self.cluster.add_node(**self._node(member))

    def kill(self, member: str) -> None:
        """The node's raylet dies at once, and with it all that it has started."""
        [raylet] = self.workers[member].all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)

    def replace(self, member: str) -> None:
        self.cluster.remove_node(self.workers[member], allow_graceful=False)
        self.workers[member] = self.add(member)

    @staticmethod
    def _node(member: str) -> dict[str, Any]:
        return {
            "num_cpus": 1,
            "object_store_memory": 80 * 2**20,
            "include_dashboard": False,
            "node_ip_address": "127.0.0.1",
            "resources": {home(member): 1},
        }


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    import ray
    from ray import serve

    before = psutil.Process().children(recursive=True)
    started = Nodes()
    try:
        ray.init(address=started.cluster.address, log_to_driver=False)
        yield started
    finally:
        serve.shutdown()
        ray.shutdown()
        started.cluster.shutdown()
        left = [p for p in psutil.Process().children(recursive=True) if p not in before]
        _, alive = psutil.wait_procs(left, timeout=10)
        for process in alive:
            process.kill()
    assert not alive, f"processes left behind: {alive}"


@pytest.fixture(scope="module")
def client(nodes: Nodes) -> Iterator[OpenAI]:
    from ray import serve

    from deployments.app import build_app

    port = free_port()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_app(AppConfig.model_validate(config())), name=APP, route_prefix="/")
    base_url = f"http://127.0.0.1:{port}/v1"
    with closing(OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=120)) as client:
        yield client


@dataclass
class StreamedAnswer:
    text: str
    degraded: bool
    states: dict[str, str]
    seconds: float


def answer(
    client: OpenAI, model: str, meanwhile: Callable[[], None] = lambda: None, at: str = " 1 2 3"
) -> StreamedAnswer:
    """One streamed answer; ``meanwhile`` happens when so much of it is written."""
    started, text, summary = time.monotonic(), "", {}
    request: Any = {"model": model, "messages": [{"role": "user", "content": "Count."}]}
    for chunk in client.chat.completions.create(stream=True, **request):
        for choice in chunk.choices:
            before, text = text, text + (choice.delta.content or "")
            if text.startswith(at) and not before.startswith(at):
                meanwhile()
            if choice.finish_reason:
                summary = (chunk.model_extra or {})["ensemble"]
    states = {member["model"]: member["status"] for member in summary["members"]}
    return StreamedAnswer(text, summary["degraded"], states, time.monotonic() - started)


def homes(deployment: str) -> list[str]:
    """On whose nodes the running replicas of a deployment are."""
    import ray
    from ray.serve.context import _get_global_client

    named = {
        node["NodeID"]: name
        for node in ray.nodes()
        for name in NAMES
        if node["Alive"] and home(name) in node["Resources"]
    }
    app = _get_global_client().get_serve_details()["applications"][APP]
    replicas = app["deployments"][deployment]["replicas"]
    return [named[r["node_id"]] for r in replicas if r.get("node_id") in named]


def test_members_are_where_their_resources_are_and_the_gateway_is_on_the_head(
    client: OpenAI,
) -> None:
    assert {name: homes(f"member-{name}") for name in NAMES} == {name: [name] for name in NAMES}
    assert homes("gateway") == ["ann"]
    result = answer(client, "sweet")
    assert result.text == NUMBERS
    assert not result.degraded


def test_an_answer_outlives_a_node_and_later_ones_do_without_its_member(
    nodes: Nodes, client: OpenAI
) -> None:
    """The node takes a member with it, and a coordinator where Serve had put one there."""
    result = answer(client, "sweet", lambda: nodes.kill("bob"))
    assert result.text == NUMBERS
    assert result.degraded
    assert result.states == {"ann": "ok", "bob": "dropped", "eve": "ok"}
    for model in ("fuse", "sweet", "fuse"):
        later = answer(client, model)
        assert later.text == NUMBERS
        assert later.states["bob"] == "dropped"
        assert later.seconds < TIMEOUT_S, "a member without a node is not waited for"


def test_a_node_that_comes_back_brings_its_member_back(nodes: Nodes, client: OpenAI) -> None:
    nodes.replace("bob")
    deadline = time.monotonic() + 90
    while (result := answer(client, "sweet")).degraded:
        assert result.text == NUMBERS
        assert time.monotonic() < deadline, "the member was not taken up again"
    assert set(result.states.values()) == {"ok"}


def test_a_coordinator_goes_on_elsewhere_when_its_node_dies(nodes: Nodes, client: OpenAI) -> None:
    """Whichever coordinator is away from the head; its node's member goes with it."""
    places = {model: homes(f"ensemble-{model}") for model in ("sweet", "fuse")}
    away = [(model, at[0]) for model, at in places.items() if at and at[0] != "ann"]
    if not away:
        pytest.skip(f"Serve put all coordinators on the head: {places}")
    model, doomed = away[0]
    result = answer(client, model, lambda: nodes.kill(doomed))
    assert result.text == NUMBERS
    assert result.states[doomed] == "dropped"
    assert homes(f"ensemble-{model}") != [doomed]
