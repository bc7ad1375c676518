"""Network access to an endpoint without keys: this machine only, and no web page in its browser.

A page of any site may send requests to 127.0.0.1. Browsers name it in ``Origin``; a page whose
host name resolves to 127.0.0.1 (DNS rebinding) is recognised by ``Host``.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv6Address, ip_address

from runtime.config.access import AccessConfig
from runtime.errors import ConfigError, Forbidden

REMEDY = (
    "name a file of keys in gateway.access.keys_file (or an environment variable in keys_env); "
    "see docs/security.md. If anyone may use the server, set gateway.access.open: true"
)


def refuse_exposed(access: AccessConfig, host: str | None) -> None:
    """Raises ``ConfigError`` for a server without keys that would listen on another address than
    loopback. ``host`` is ``None`` for a server that does not listen."""
    if not (host is None or is_loopback(host) or access.guarded or access.open):
        raise ConfigError(
            f"the server would listen on {host or 'all addresses'}, open to other machines, and "
            f"has no keys: listen on 127.0.0.1, or {REMEDY}"
        )


def check_network_access(
    access: AccessConfig,
    server: str | None,
    host: str | None,
    origin: str | None,
    origins: Collection[str],
) -> None:
    """Raises ``Forbidden`` for a request that an endpoint without keys does not accept.

    ``server`` is the local address of the connection: ``None``, or not an IP address, without a
    network. ``host`` and ``origin`` are request headers.
    """
    if access.guarded:
        return
    if not access.open and server is not None and _is_address(server):
        if not is_loopback(server):
            raise Forbidden(
                f"this server has no keys and answers on loopback only, not on {server}: {REMEDY}",
                "key_required",
            )
        if host is not None and not is_loopback(_name(host)):
            raise Forbidden(
                "this server has no keys and accepts only the Host localhost or 127.0.0.1: "
                f"{REMEDY}",
                "host_not_allowed",
            )
    if origin is not None and origin not in origins and "*" not in origins:
        raise Forbidden(
            "web pages of this origin may not use this server; name it in gateway.allow_origins",
            "origin_not_allowed",
        )


def is_loopback(host: str) -> bool:
    """Whether an address or host name means this machine."""
    if not _is_address(host):
        name = host.lower().removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")
    address = ip_address(host)
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (inner or address).is_loopback


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
