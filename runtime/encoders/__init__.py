"""Text encoders turn a text into one vector. Heavy imports happen when one is built."""

from __future__ import annotations

from runtime.config.aux_models import EncoderConfig
from runtime.encoders.base import TextEncoder

__all__ = ["EncoderConfig", "TextEncoder", "build_encoder"]


def build_encoder(config: EncoderConfig) -> TextEncoder:
    """Loads the weights; blocks until the encoder can be asked."""
    from runtime.encoders.transformers import TransformerEncoder

    return TransformerEncoder(config)
