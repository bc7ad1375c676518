"""The tiny checkpoints of the engines' tests serve reward models too."""

from __future__ import annotations

from tests.runtime.engines.conftest import folder_of, reference

__all__ = ["folder_of", "reference"]
