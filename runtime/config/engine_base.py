"""What the configuration of every engine has. Plugins import this module only."""

from __future__ import annotations

from typing import ClassVar

from runtime.config.base import Strict
from runtime.types.capabilities import TOKEN_LEVEL, Capability


class EngineBase(Strict):
    """The configuration of one engine; ``type`` selects it."""

    type: str

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the engine will provide, known before its weights are loaded."""
        return TOKEN_LEVEL

    def remedy(self, capability: Capability) -> str | None:
        """The setting of this engine that would provide a capability, as ``key: value``; ``None``:
        there is none."""
        return None


class PluginEngine(EngineBase):
    """The configuration of an engine from an installed package: docs/plugins.md."""

    factory: ClassVar[str]
    """``module:callable``, imported when the engine is built. It is called with the configuration
    and returns a ``runtime.engines.base.Engine`` that is ready to serve."""
