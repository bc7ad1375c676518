"""Memory size of a checkpoint's weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from runtime.weights.checkpoint import header, weight_files

_FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Size:
    """Size of a checkpoint's tensors."""

    stored: int
    """Bytes of the weight files."""
    numbers: int
    """Floating-point values, which an engine converts to its own dtype."""
    kept: int
    """Bytes of all other tensors, such as quantised ones, which are not converted."""

    def at(self, width: int) -> int:
        """Bytes in memory with a dtype of ``width`` bytes."""
        return self.numbers * width + self.kept


def measure(folder: Path, weights: str) -> Size:
    """The size, from the headers of the safetensors files. Raises ``WeightsError``."""
    stored = numbers = kept = 0
    for file in weight_files(folder, weights):
        stored += file.stat().st_size
        for tensor in header(file, weights).values():
            if tensor["dtype"] in _FLOATS:
                numbers += math.prod(tensor["shape"])
            else:
                first, last = tensor["data_offsets"]
                kept += last - first
    return Size(stored, numbers, kept)
