"""Keys under Ray Serve, and servers that must not start without them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from openai import AuthenticationError, OpenAI, PermissionDeniedError, RateLimitError

from deployments.config.app_config import AppConfig
from deployments.http.auth.keys import hash_of
from deployments.launch.local_ray import APP, serving
from runtime.errors import ConfigError
from tests.support.local_stack import animals
from tests.support.serve import COUNT, NUMBERS, deployed, free_port

ANN, BOB, EVE = "key-of-ann-0123456789", "key-of-bob-0123456789", "key-of-eve-0123456789"


def write(path: Path, **keys: dict[str, Any]) -> None:
    known = [{"name": name, **fields} for name, fields in keys.items()]
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"keys": known}))
    draft.replace(path)


def config(**gateway: Any) -> AppConfig:
    whole = animals(sweet={"type": "sweetspan", "span_words": 1})
    whole["members"]["slow"] = {"engine": {"type": "slow", "engine": COUNT, "seconds": 0.03}}
    whole["ensembles"]["count"] = {"type": "single", "members": ["slow"], "chunk_tokens": 1}
    for member in whole["members"].values():
        member["replica"] = {"num_cpus": 0.1}
        member["price"] = {"output": 1_000_000.0}  # one for each token
    return AppConfig.model_validate(whole | {"gateway": gateway})


def client(url: str, key: str) -> OpenAI:
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)


def chat(asking: OpenAI, model: str, **more: Any) -> Any:
    return asking.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Who?"}], **more
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    write(path, ann={"sha256": hash_of(ANN)}, bob={"sha256": hash_of(BOB), "models": ["cat"]})
    return path


@pytest.fixture(scope="module")
def url(keys: Path, serve_port: int) -> Iterator[str]:
    settings = config(access={"keys_file": str(keys)}, body_timeout_s=1.0)
    with deployed(serve_port, settings) as base_url:
        yield base_url


@pytest.mark.ray
def test_a_key_lets_in_and_nothing_else_does(url: str) -> None:
    assert chat(client(url, ANN), "sweet").choices[0].message.content
    assert httpx2.get(url.removesuffix("/v1") + "/ready").json() == {"status": "ready"}
    with pytest.raises(AuthenticationError, match="not one of this server's"):
        chat(client(url, EVE), "sweet")
    with pytest.raises(PermissionDeniedError, match="may not use model 'sweet'"):
        chat(client(url, BOB), "sweet")
    assert [model.id for model in client(url, BOB).models.list()] == ["cat"]
    reply = httpx2.post(f"{url}/chat/completions", json={})
    assert reply.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.ray
def test_a_trace_is_shown_to_the_key_that_made_it(url: str) -> None:
    made = chat(client(url, ANN), "cat").id
    found = {
        key: httpx2.get(f"{url}/traces/{made}", headers={"authorization": f"Bearer {key}"})
        for key in (ANN, BOB)
    }
    assert [reply.status_code for reply in found.values()] == [200, 404]


@pytest.mark.ray
def test_a_body_that_does_not_come_is_not_waited_for_behind_serves_proxy(url: str) -> None:
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n"
        slow.sendall(f"{head}authorization: Bearer {ANN}\r\n\r\n{{".encode())
        reply = b""
        while piece := slow.recv(4096):
            reply += piece
    assert reply.startswith(b"HTTP/1.1 408 ") and b"body_too_slow" in reply


@pytest.mark.ray
def test_a_stream_that_is_broken_off_is_paid_and_a_spent_budget_refused(
    url: str, keys: Path
) -> None:
    """One for each token: the first stream is left after three, the second ends where the budget
    does, and a new key under the same name changes nothing of that."""
    eve = {"sha256": [hash_of(EVE)], "budget": {"cost": 10.0, "period": "month"}}
    write(keys, ann={"sha256": hash_of(ANN)}, eve=eve)
    asking, text, stop = client(url, EVE), "", time.monotonic() + 20
    while True:
        try:
            stream = chat(asking, "count", stream=True)
            break
        except AuthenticationError:  # the file has not been read again yet
            assert time.monotonic() < stop
            time.sleep(0.1)
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if text == " 1 2 3":
            break
    stream.close()
    rest = chat(asking, "count")
    summary = rest.model_extra["ensemble"]
    assert summary["stop_reason"] == "budget_cost" and rest.choices[0].finish_reason == "length"
    written = rest.choices[0].message.content
    assert NUMBERS.startswith(written) and 1 <= summary["cost"]["amount"] <= 7
    with pytest.raises(RateLimitError, match="10 in cost a month is used up") as spent:
        chat(asking, "count")
    assert spent.value.code == "insufficient_quota"
    assert chat(client(url, ANN), "cat").choices
    with pytest.raises(AuthenticationError):
        chat(client(url, BOB), "cat")


@pytest.mark.ray
def test_serves_ports_on_every_address_want_rays_token(url: str) -> None:
    """Each replica opens one for other replicas, and unpickles what comes in."""
    import grpc
    from ray.serve.generated.serve_pb2 import ASGIRequest
    from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub

    ports = [
        connection.laddr.port
        for process in psutil.Process().children(recursive=True)
        if any(f"ServeReplica:{APP}" in part for part in process.cmdline())
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip == "::"
    ]
    assert len(ports) >= 6, "one for each replica"
    for port in ports:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as refused:
                ASGIServiceStub(channel).HandleRequest(ASGIRequest(), timeout=20)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_server_for_others_does_not_start_without_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="has no keys: listen on 127.0.0.1, or name a file"):
        with serving(config(), host=host, port=free_port()):
            raise AssertionError("it has started")


def test_a_server_whose_keys_cannot_be_read_does_not_start() -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_KEYS .* is not set"):
        with serving(config(access={"keys_env": "NO_SUCH_KEYS"}), port=free_port()):
            raise AssertionError("it has started")
    assert "RAY_ADDRESS" not in os.environ
