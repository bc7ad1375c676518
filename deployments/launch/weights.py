"""Fetching the weights of a configuration before anything starts."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.config.app_config import AppConfig
from deployments.progress import console
from runtime.config.engines import (
    EngineConfig,
    FlakyEngine,
    SlowEngine,
    TransformersEngine,
    VllmEngine,
)


def fetch_weights(config: AppConfig) -> None:
    """Downloads and converts the weights of every model, so that no replica has to."""
    from runtime.weights import resolve

    for name, member in config.served.items():
        for engine in with_weights(member.engine):
            console.log(f"weights of {name}: {engine.weights}")
            resolve(engine.weights, engine.sha256)


def with_weights(engine: EngineConfig) -> Iterator[TransformersEngine | VllmEngine]:
    """The engine, or the one that it wraps, if it reads weights."""
    match engine:
        case TransformersEngine() | VllmEngine():
            yield engine
        case FlakyEngine() | SlowEngine():
            yield from with_weights(engine.engine)
