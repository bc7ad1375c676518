"""Logs and spans of a request through the processes of Ray Serve."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deployments.config.app_config import AppConfig
from tests.support.local_stack import DOG, animals
from tests.support.observability.otlp_collector import Collector, collecting
from tests.support.observability.prometheus import SERVE, samples, wait_for
from tests.support.serve import deployed

pytestmark = pytest.mark.ray

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
EARLIER: set[Path] = set()
"""Logs of applications that ran in this Serve before."""
ASKED = {"model": "e", "messages": [{"role": "user", "content": "Who on earth?"}]}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def url(collector: Collector, serve_port: int) -> Iterator[str]:
    config = animals(e={"type": "sweetspan", "span_words": 1})
    config["tracing"] = {"endpoint": collector.url}
    # Its second call fails once, so that there is a line of every process.
    config["members"]["dog"]["engine"] = {"type": "flaky", "engine": DOG, "fails_at": [2]}
    for member in config["members"].values():
        member["replica"] = {"num_cpus": 0.1}
    EARLIER.update(log_files())
    with deployed(serve_port, AppConfig.model_validate(config), {"encoding": "JSON"}) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def reply(url: str) -> httpx2.Response:
    headers = {"x-request-id": "req-of-mine", "traceparent": f"00-{TRACE}-{CALLER}-01"}
    answer = httpx2.post(f"{url}/chat/completions", json=ASKED, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def log_files(pattern: str = "*.log") -> set[Path]:
    import ray

    logs = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"
    return set(logs.glob(pattern))


def lines(deployment: str) -> list[dict[str, Any]]:
    files = sorted(log_files(f"*{deployment}*.log") - EARLIER)
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def line_of(deployment: str, what: str, seconds: float = 10) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        found = [line for line in lines(deployment) if what in line["message"]]
        if found:
            return found[0]
        assert time.monotonic() < deadline, lines(deployment)
        time.sleep(0.1)


def test_the_coordinators_line_maps_the_clients_id_to_the_trace_id(reply: httpx2.Response) -> None:
    line = line_of("ensemble-e", "answer ended")
    trace_id = reply.headers["x-ensemble-trace-id"]
    assert (line["trace_id"], line["request_id"]) == (trace_id, "req-of-mine")
    assert (line["ensemble"], line["outcome"], line["levelname"]) == ("e", "eos", "INFO")
    assert trace_id in line["message"]


def test_spans_of_all_processes_join_the_callers_trace(
    reply: httpx2.Response, collector: Collector
) -> None:
    wanted = {"chat e", "POST /v1/chat/completions", "generate cat", "generate dog"}
    result = collector.wait_for(TRACE, wanted)
    assert len({one.pid for one in result}) == 4
    by_id = {one.id: one for one in result}
    [server] = [one for one in result if one.process == "gateway"]
    assert server.parent == CALLER
    [answer] = [one for one in result if one.name == "chat e"]
    assert answer.process == "ensemble e" and answer.parent == server.id
    calls = [one for one in result if one.name.startswith("call ")]
    assert calls and all(one.parent == answer.id for one in calls)
    engine = [one for one in result if one.process.startswith("member ")]
    assert {one.process for one in engine} == {"member cat", "member dog"}
    assert all(by_id[one.parent].name == f"call {one.process[7:]}" for one in engine)


def test_the_lines_of_other_processes_carry_the_trace_id_too(
    url: str, reply: httpx2.Response
) -> None:
    trace_id = reply.headers["x-ensemble-trace-id"]
    again = line_of("ensemble-e", "member called again")
    assert (again["trace_id"], again["member"]) == (trace_id, "dog")
    refused = {"x-request-id": "req-refused"}
    bad = httpx2.post(f"{url}/chat/completions", json={"model": "nobody"}, headers=refused)
    line = line_of("gateway", "refused")
    assert line["status"] == bad.status_code and line["request_id"] == "req-refused"


def test_no_line_holds_text_of_prompts(reply: httpx2.Response) -> None:
    for deployment in ("gateway", "ensemble-e", "member-cat", "member-dog"):
        for line in lines(deployment):
            assert "on earth" not in json.dumps(line)


def test_the_dashboards_names_for_serve_are_serves(url: str, reply: httpx2.Response) -> None:
    """Errors of replicas are counted once there is one, which no replica here has."""
    httpx2.post(f"{url}/chat/completions", json={"model": "nobody"})
    for name, labels in SERVE.items():
        if "error_counter" not in name:
            wait_for(name, 0)
            assert all(labels <= sample.labels.keys() for sample in samples(name)), name
