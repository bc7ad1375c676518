"""The address on which Serve listens, read inside a replica: ``serve deploy`` does not pass the
HTTP options to applications, and a running Serve keeps the address that it was started with."""

from __future__ import annotations

from ray.serve.context import _get_global_client

from deployments.http.auth.network import refuse_exposed
from runtime.config.access import AccessConfig


def refuse_exposed_replica(access: AccessConfig) -> None:
    """Raises ``ConfigError`` in a gateway without keys whose Serve listens beyond loopback."""
    client = _get_global_client()
    assert client is not None  # a replica runs, so there is a controller
    refuse_exposed(access, client.http_config.host)
