# ruff: noqa: F401
from typing import ClassVar, Literal

from runtime.config.engine_base import PluginEngine
