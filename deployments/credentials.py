"""The key with which the command line asks an endpoint."""

from __future__ import annotations

import os

VARIABLE = "ORCHESTRION_API_KEY"


def api_key() -> str:
    """Clients want some text where no key is needed."""
    return os.environ.get(VARIABLE) or "none"
