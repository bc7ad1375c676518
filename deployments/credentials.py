"""The key with which the command line asks an endpoint."""

from __future__ import annotations

import os

from runtime.config.access import AccessConfig
from runtime.errors import ConfigError

VARIABLE = "ORCHESTRION_API_KEY"


def api_key() -> str:
    """Clients want some text where no key is needed."""
    return os.environ.get(VARIABLE) or "none"


def need_key(access: AccessConfig) -> None:
    """Raises ``ConfigError`` when a server is to be started and asked that would not answer."""
    if access.guarded and not os.environ.get(VARIABLE):
        raise ConfigError(
            f"this configuration wants a key of those who ask; put it into {VARIABLE}"
        )
