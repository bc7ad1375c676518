"""Text encoders: a text becomes one vector. Heavy imports happen when an encoder is built."""

from __future__ import annotations

from runtime.config.aux_models import EncoderConfig
from runtime.encoders.base import TextEncoder

__all__ = ["EncoderConfig", "TextEncoder", "build_encoder"]


def build_encoder(config: EncoderConfig) -> TextEncoder:
    """Loads the weights; blocks until the encoder is ready. Raises ``WeightsError``."""
    from runtime.encoders.transformers import TransformerEncoder

    return TransformerEncoder(config)
