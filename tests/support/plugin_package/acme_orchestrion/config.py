"""The engine's configuration: light, since every process that reads a configuration imports it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from runtime.config.engine_base import PluginEngine


class FixedEngine(PluginEngine):
    """Gives the same answer to everything."""

    factory: ClassVar[str] = "acme_orchestrion.engine:FixedLM"

    type: Literal["fixed"] = "fixed"
    answer: str
    context_length: int = Field(4096, ge=8)
