"""Engines by name. Heavy imports happen when an engine is built, not before."""

from __future__ import annotations

from runtime.config import (
    EchoEngine,
    EngineConfig,
    FlakyEngine,
    SlowEngine,
    TableEngine,
    TransformersEngine,
    VllmEngine,
)
from runtime.engines.base import Engine, EngineSpec

__all__ = ["Engine", "EngineSpec", "build_engine"]


def build_engine(config: EngineConfig) -> Engine:
    """Loads the weights and starts the engine; blocks until it can serve."""
    match config:
        case TransformersEngine():
            from runtime.engines.transformers import TransformersLM

            return TransformersLM(config)
        case VllmEngine():
            from runtime.engines.vllm_start import prepare_environment

            prepare_environment(config)  # vLLM reads it when it is imported
            from runtime.engines.vllm import VllmLM

            return VllmLM(config)
        case TableEngine():
            from runtime.engines.scripted import TableLM

            return TableLM(config)
        case EchoEngine():
            from runtime.engines.scripted import EchoLM

            return EchoLM(config)
        case FlakyEngine():
            from runtime.engines.scripted import FlakyLM

            return FlakyLM(build_engine(config.engine), config.fails_at, config.fails_from)
        case SlowEngine():
            from runtime.engines.scripted import SlowLM

            return SlowLM(build_engine(config.engine), config.seconds, config.slow_from)
