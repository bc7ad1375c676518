"""What is configured of every model that writes nothing: how it is served and asked."""

from __future__ import annotations

from pydantic import Field

from runtime.config import Price, ReplicaConfig, Strict


class AideConfig(Strict):
    price: Price = Price()
    """Per judged step or encoded text, as ``input`` per million of them."""
    timeout_s: float = Field(120.0, gt=0)
    retries: int = Field(1, ge=0)
    replica: ReplicaConfig = ReplicaConfig()
    max_batch: int = Field(64, ge=1)
    """Most messages, each with what one coordinator asks, that are answered together."""
    batch_wait_s: float = Field(0.002, ge=0)
    """How long the first message of a batch waits for others."""
