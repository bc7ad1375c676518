"""The API key that the command line sends to an endpoint."""

from __future__ import annotations

import os

from runtime.config.access import AccessConfig
from runtime.errors import ConfigError

VARIABLE = "ORCHESTRION_API_KEY"


def api_key() -> str:
    """The key, or a placeholder: openai-python requires one."""
    return os.environ.get(VARIABLE) or "none"


def need_key(access: AccessConfig) -> None:
    """Raises ``ConfigError`` if a server with these settings needs a key and none is set."""
    if access.guarded and not os.environ.get(VARIABLE):
        raise ConfigError(
            f"gateway.access of this configuration requires an API key; set {VARIABLE}"
        )
