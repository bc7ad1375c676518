"""Web pages, host names and slow bodies at the endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.http.gateway import build_api
from runtime.config.gateway import GatewayConfig
from tests.deployments.http.auth.guarded_api import ANN, CHAT, bearer, keys_file, said
from tests.support.http.ensembles import (
    Chorus,
    Endless,
    api_of,
    body,
    call,
    served,
)


async def test_web_pages_are_refused_unless_they_are_named() -> None:
    page = {"origin": "https://chat.example"}
    bare = api_of({"m": Chorus()})
    refused = await call(bare, "POST", CHAT, body(), page)
    assert said(refused) == (403, "invalid_request_error", "origin_not_allowed")
    assert "access-control-allow-origin" not in refused.headers
    asking = page | {"access-control-request-method": "POST"}
    assert (await call(bare, "OPTIONS", CHAT, headers=asking)).status == 403
    named = api_of({"m": Chorus()}, allow_origins=("https://chat.example",))
    reply = await call(named, "POST", CHAT, body(), page)
    assert reply.headers["access-control-allow-origin"] == "https://chat.example"
    assert (await call(named, "OPTIONS", CHAT, headers=asking)).status == 200
    other = await call(named, "POST", CHAT, body(), {"origin": "https://evil.example"})
    assert other.status == 403


async def test_a_page_that_is_named_asks_first_without_a_key_and_then_with_one(
    tmp_path: Path,
) -> None:
    access = {"keys_file": str(keys_file(tmp_path))}
    api = api_of({"m": Chorus()}, access=access, allow_origins=("*",))
    page = {"origin": "https://chat.example"}
    asking = page | {"access-control-request-method": "POST"}
    asking["access-control-request-headers"] = "authorization,content-type"
    allowed = await call(api, "OPTIONS", CHAT, headers=asking)
    assert allowed.status == 200
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert (await call(api, "POST", CHAT, body(), page)).status == 401
    assert (await call(api, "POST", CHAT, body(), page | bearer(ANN))).status == 200


def test_a_server_on_loopback_is_called_by_its_own_name_only() -> None:
    import httpx2

    with served(api_of({"m": Chorus()})) as url:
        assert httpx2.get(f"{url}/v1/models").status_code == 200
        rebound = httpx2.get(f"{url}/v1/models", headers={"host": "evil.example"})
        assert rebound.status_code == 403
        assert rebound.json()["error"]["code"] == "host_not_allowed"
        result = httpx2.get(f"{url}/ready", headers={"host": "evil.example"})
        assert result.json() == {"status": "ready"}, "no names"
        assert "models" in httpx2.get(f"{url}/ready").json()


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    import socket

    with served(api_of({"m": Endless()}, body_timeout_s=0.3)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{{"
            slow.sendall(head.encode())
            reply = b""
            while piece := slow.recv(4096):  # until the server closes the connection
                reply += piece
    assert reply.startswith(b"HTTP/1.1 408 ") and b'"code":"body_too_slow"' in reply


def test_an_endpoint_whose_keys_cannot_be_read_is_not_built(tmp_path: Path) -> None:
    from runtime.errors import ConfigError

    access = {"keys_file": str(tmp_path / "none.yaml")}
    with pytest.raises(ConfigError, match="cannot read the keys"):
        build_api(GatewayConfig.model_validate({"access": access}), {"m": Chorus()})
