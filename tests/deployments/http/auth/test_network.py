"""Whom a server without keys answers."""

from __future__ import annotations

import pytest

from deployments.http.auth.network import check_network_access, is_loopback, refuse_exposed
from runtime.config.access import AccessConfig
from runtime.errors import ConfigError, Forbidden

BARE, OPEN = AccessConfig(), AccessConfig(open=True)
GUARDED = AccessConfig(keys_file="keys.yaml")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST.", "a.localhost"],
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    refuse_exposed(BARE, host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "10.0.0.1", "192.168.1.2", "::ffff:10.0.0.1", "fe80::1", "example.com"]
    + ["localhost.example.com", "127.0.0.1.example.com", "127.0.0.1.nip.io", "2130706433"],
)
def test_what_is_not_loopback_needs_keys_or_the_word_that_all_may_come(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match=r"listen on 127.0.0.1, or name a file of keys.*open: tr"):
        refuse_exposed(BARE, host)
    refuse_exposed(OPEN, host)
    refuse_exposed(GUARDED, host)


def test_a_server_that_listens_nowhere_needs_nothing() -> None:
    refuse_exposed(BARE, None)


def refused(
    access: AccessConfig, server: str | None, host: str | None, origin: str | None, *origins: str
) -> str | None:
    try:
        check_network_access(access, server, host, origin, origins)
    except Forbidden as refusal:
        return refusal.code
    return None


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "::1", None])
def test_this_machine_is_answered(host: str | None) -> None:
    assert refused(BARE, "127.0.0.1", host, None) is None


def test_a_connection_from_outside_is_not() -> None:
    assert refused(BARE, "10.0.0.1", "localhost", None) == "key_required"
    assert refused(BARE, "::ffff:10.0.0.1", "localhost", None) == "key_required"
    assert refused(OPEN, "10.0.0.1", "10.0.0.1:8000", None) is None


@pytest.mark.parametrize("host", ["evil.example:8000", "0.0.0.0:8000", "10.0.0.1", "[fe80::1]:80"])
def test_a_name_that_was_made_to_lead_here_is_not(host: str) -> None:
    """DNS rebinding."""
    assert refused(BARE, "127.0.0.1", host, None) == "host_not_allowed"
    assert refused(OPEN, "127.0.0.1", host, None) is None


@pytest.mark.parametrize("access", [BARE, OPEN])
def test_a_web_page_is_answered_only_where_it_is_named(access: AccessConfig) -> None:
    page = "https://chat.example"
    here = ("127.0.0.1", "localhost:8000")
    assert refused(access, *here, page) == "origin_not_allowed"
    assert refused(access, *here, page, page) is None
    assert refused(access, *here, page, "*") is None
    assert refused(access, *here, "https://chat.example.evil", page) == "origin_not_allowed"
    assert refused(access, *here, "null") == "origin_not_allowed"


def test_with_keys_whoever_has_one_may_come_from_anywhere() -> None:
    assert refused(GUARDED, "10.0.0.1", "api.example", "https://any.example") is None


@pytest.mark.parametrize("server", [None, "testserver", "/run/orchestrion.sock"])
def test_where_there_is_no_network_between_there_is_nothing_to_check(server: str | None) -> None:
    assert refused(BARE, server, "testserver", None) is None
