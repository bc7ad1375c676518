"""Where Serve listens, as a replica finds it: ``serve deploy`` shows our code no more than its part
of the document, and a Serve that runs already keeps the address that it was started with."""

from __future__ import annotations

from ray.serve.context import _get_global_client

from deployments.http.auth.network import refuse_exposed
from runtime.config.access import AccessConfig


def refuse_exposed_replica(access: AccessConfig) -> None:
    """Raises ``ConfigError`` in the gateway of a Serve that others reach, when it has no keys."""
    client = _get_global_client()
    assert client is not None  # a replica runs, so there is a controller
    refuse_exposed(access, client.http_config.host)
