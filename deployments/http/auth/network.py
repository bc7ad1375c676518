"""Who can reach an endpoint without keys: this machine, and no web page that a browser shows on it.

A page on any site may send requests to 127.0.0.1. Browsers name it in ``Origin``; a page whose own
name leads to 127.0.0.1 (DNS rebinding) stands out by its ``Host``.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv6Address, ip_address

from runtime.config.access import AccessConfig
from runtime.errors import ConfigError, Forbidden

REMEDY = (
    "name a file of keys in gateway.access.keys_file (or an environment variable in keys_env); "
    "see docs/security.md. If anyone who reaches it may use it, say gateway.access.open: true"
)


def refuse_exposed(access: AccessConfig, host: str | None) -> None:
    """Raises ``ConfigError`` for a server that would listen elsewhere than on loopback, without
    keys. A host of ``None`` listens nowhere."""
    if not (host is None or is_loopback(host) or access.guarded or access.open):
        raise ConfigError(
            f"the server is to listen on {host or 'all addresses'}, where others reach it, and has "
            f"no keys: listen on 127.0.0.1, or {REMEDY}"
        )


def check_network_access(
    access: AccessConfig,
    server: str | None,
    host: str | None,
    origin: str | None,
    origins: Collection[str],
) -> None:
    """Raises ``Forbidden`` for a request that an endpoint without keys does not answer.

    ``server`` is the address that the connection came to: ``None``, or something that is no IP
    address, where there is no network between. ``host`` and ``origin`` are the request's headers.
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
                "this server has no keys and is called localhost or 127.0.0.1, not as the Host "
                f"header says: {REMEDY}",
                "host_not_allowed",
            )
    if origin is not None and origin not in origins and "*" not in origins:
        raise Forbidden(
            "web pages of this origin may not use this server; name it in gateway.allow_origins",
            "origin_not_allowed",
        )


def is_loopback(host: str) -> bool:
    """Of an address, or of a name that means this machine."""
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
