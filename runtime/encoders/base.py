"""The text encoder protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class TextEncoder(Protocol):
    """Encodes batches of texts. Raises ``EngineFault``."""

    @property
    def size(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, size]``; blocks, and may be called from any thread."""
        ...
