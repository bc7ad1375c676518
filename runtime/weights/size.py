"""How much memory the weights of a checkpoint take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from runtime.weights.checkpoint import header, weight_files

_FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Size:
    """Numbers and bytes of a checkpoint's tensors."""

    stored: int
    """Bytes of the files."""
    numbers: int
    """Numbers in plain floating point, which an engine turns into its own dtype."""
    kept: int
    """Bytes of all other tensors, such as quantised ones, which stay as they are."""

    def at(self, width: int) -> int:
        """Bytes in memory with a dtype of so many bytes."""
        return self.numbers * width + self.kept


def measure(folder: Path, weights: str) -> Size:
    """From the headers of the safetensors files. Raises ``WeightsError``."""
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
