"""Text encoders turn a text into one vector. Heavy imports happen when one is built."""

from __future__ import annotations

from runtime.encoders.base import TextEncoder
from runtime.encoders.config import EncoderConfig

__all__ = ["EncoderConfig", "TextEncoder", "build_encoder"]


def build_encoder(config: EncoderConfig) -> TextEncoder:
    """Loads the weights; blocks until the encoder can be asked."""
    from runtime.encoders.transformer import TransformerEncoder

    return TransformerEncoder(config)
