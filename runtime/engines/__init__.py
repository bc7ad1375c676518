"""Builds engines from their configuration. Heavy imports happen when an engine is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from runtime.config.engine_base import PluginEngine
from runtime.config.engines import (
    EchoEngine,
    EngineConfig,
    FlakyEngine,
    SlowEngine,
    TableEngine,
    TransformersEngine,
    VllmEngine,
)
from runtime.engines.base import Engine, EngineSpec
from runtime.errors import ConfigError

__all__ = ["Engine", "EngineSpec", "build_engine"]


def build_engine(
    config: EngineConfig, name: str = "", stat_loggers: Callable[[], Sequence[Any]] = tuple
) -> Engine:
    """Loads the weights and starts the engine; blocks until it is ready.

    ``stat_loggers`` gives vLLM's factories of stat loggers; its metrics call the model ``name``.
    Raises ``WeightsError``, ``ConfigError``.
    """
    match config:
        case TransformersEngine():
            from runtime.engines.transformers.engine import TransformersLM

            return TransformersLM(config)
        case VllmEngine():
            from runtime.engines.vllm.launch import prepare_environment

            prepare_environment(config)  # before vLLM is imported
            from runtime.engines.vllm.engine import VllmLM

            return VllmLM(config, name, stat_loggers())
        case TableEngine():
            from runtime.engines.scripted.models import TableLM

            return TableLM(config)
        case EchoEngine():
            from runtime.engines.scripted.models import EchoLM

            return EchoLM(config)
        case FlakyEngine():
            from runtime.engines.scripted.fault_injection import FlakyLM

            inner = build_engine(config.engine, name, stat_loggers)
            return FlakyLM(inner, config.fails_at, config.fails_from)
        case SlowEngine():
            from runtime.engines.scripted.fault_injection import SlowLM

            inner = build_engine(config.engine, name, stat_loggers)
            return SlowLM(inner, config.seconds, config.slow_from)
        case PluginEngine():
            return _plugin(config)
    raise ConfigError(f"engine type {config.type!r} has no implementation")


def _plugin(config: PluginEngine) -> Engine:
    try:
        factory: Callable[[PluginEngine], Engine] = resolve_name(config.factory)
    except (ImportError, AttributeError) as fault:
        raise ConfigError(
            f"engine type {config.type!r}: its factory {config.factory} cannot be imported: "
            f"{fault}; repair or reinstall the package that registers it"
        ) from fault
    return factory(config)
