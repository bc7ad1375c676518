"""Bad requests through Ray Serve's own proxy: each is answered, and those beside them are too."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from deployments.config.app_config import AppConfig
from tests.support.http.request_bodies import BYTES, GOOD
from tests.support.models.method_families import families
from tests.support.serve import deployed

pytestmark = pytest.mark.ray

MODELS = ("single", "sweetspan", "gac", "le-mcts", "fixed-route")
CHAT = "v1/chat/completions"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


def config() -> dict[str, Any]:
    whole = families()
    whole["ensembles"] = {name: whole["ensembles"][name] for name in MODELS}
    for member in (*whole["members"].values(), *whole["reward_models"].values()):
        member["replica"] = {"num_cpus": 0.1}
    return whole


@pytest.fixture(scope="module")
def root(serve_port: int) -> Iterator[str]:
    with deployed(serve_port, AppConfig.model_validate(config())) as base_url:
        yield base_url.removesuffix("v1")


def said(reply: httpx2.Response) -> list[Any]:
    whole = reply.json()
    return [whole["choices"], whole["usage"]]


def test_bad_requests_are_refused_and_their_neighbours_answered_as_alone(root: str) -> None:
    turns = [{"role": "user", "content": "Who sat?"}]
    requested = [
        {"model": model, "messages": turns, "seed": 3, "temperature": 1.0, "n": 2}
        for model in MODELS
    ]
    far = json.dumps({"model": "gac", "messages": [{"role": "user", "content": "x" * 900_000}]})
    hostile = [*BYTES, far.encode(), b"x" * (2**20 + 1)]
    with httpx2.Client(base_url=root, timeout=60) as client, ThreadPoolExecutor(12) as pool:
        alone = [said(client.post(CHAT, json=body)) for body in requested]
        bad = [pool.submit(client.post, CHAT, content=payload) for payload in hostile]
        good = [pool.submit(client.post, CHAT, json=body) for body in requested * 3]
        refused = [reply.result() for reply in bad]
        assert [said(reply.result()) for reply in good] == alone * 3
    for payload, reply in zip(hostile, refused, strict=True):
        assert 400 <= reply.status_code < 500, (payload[:60], reply.text[:300])
        assert reply.json()["error"]["type"] == "invalid_request_error"


def test_headers_paths_and_methods_of_any_kind_are_answered(root: str) -> None:
    with httpx2.Client(base_url=root, timeout=60) as client:
        strange = {"x-request-id": "aé😀".encode() * 50, "x-ensemble-depth": b"\xe4"}
        assert client.post(CHAT, content=GOOD, headers=strange).status_code == 400
        # Serve's proxy itself decodes this header as UTF-8, before any request reaches us.
        broken = client.post(CHAT, content=GOOD, headers={"x-request-id": b"a\xffb"})
        assert broken.status_code in (200, 500)
        assert client.post(CHAT, content=GOOD, headers={"x-request-id": "a b"}).status_code == 200
        for path in ("v1/models/%ff%00", "v1/models/" + "m" * 5000, "v1/traces/%2e%2e", "%00"):
            assert client.get(path).status_code == 404
        for method in ("PUT", "DELETE", "PATCH"):
            assert client.request(method, CHAT, content=GOOD).status_code == 405
        pieces = client.post(CHAT, content=iter([GOOD[:10], GOOD[10:]]))
        assert pieces.status_code == 200
        document = client.get("openapi.json").json()
        assert "/v1/chat/completions" in document["paths"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"content-length: 500\r\n\r\n{",
        POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        POST + b"content-length: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nx-request-id: a\r\n set-cookie: b\r\n\r\n",
        b"\x16\x03\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_broken_http_harms_nobody(root: str, request_bytes: bytes) -> None:
    url = urlsplit(root)
    assert url.hostname is not None
    with socket.create_connection((url.hostname, url.port or 80), timeout=20) as sent:
        sent.sendall(request_bytes)
        sent.shutdown(socket.SHUT_WR)
        output = b"".join(iter(lambda: sent.recv(65536), b""))
    assert b"set-cookie" not in output.split(b"\r\n\r\n")[0].lower()
    assert not output.startswith(b"HTTP/1.1 5")
    assert httpx2.post(f"{root}{CHAT}", content=GOOD, timeout=60).status_code == 200
