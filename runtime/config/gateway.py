"""Configuration of the gateway and of traces."""

from __future__ import annotations

from pydantic import Field

from runtime.config.access import AccessConfig
from runtime.config.base import Strict


class TraceConfig(Strict):
    """Where finished requests are recorded."""

    folder: str | None = None
    """Parquet files are appended here; absent: traces stay in the gateway's memory only."""
    keep: int = Field(1000, ge=0)
    """Finished traces that GET /v1/traces/{id} can still show."""
    store_text: bool = True
    """False keeps prompts and answers out of the Parquet trace, and out of what
    GET /v1/traces/{id} shows of a full trace."""


class GatewayConfig(Strict):
    """The HTTP face."""

    max_n: int = Field(8, ge=1)
    """Most choices in one request."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    max_answers: int = Field(256, ge=1)
    """Answers that one gateway replica writes at a time; requests beyond get 429 at once."""
    body_timeout_s: float = Field(60.0, gt=0)
    """A request's body must have come by then."""
    keep_alive_s: float = Field(10.0, gt=0)
    """A comment line is sent on a silent stream this often."""
    replicas: int = Field(1, ge=1)
    """Gateway processes. Each grants its part of a key's limits."""
    on_head: bool = True
    """On a cluster the gateway stays on the head node, without which there is no cluster: then no
    other node's death breaks a stream. False lets its replicas go anywhere."""
    currency: str = "USD"
    access: AccessConfig = AccessConfig()
    allow_origins: tuple[str, ...] = ()
    """Web pages that may use the endpoint from a browser, as ``https://chat.example``; ``"*"`` is
    every page there is."""
