"""The input embeddings in a checkpoint folder, read row by row without loading the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import BadRequest, Unsupported
from runtime.weights.checkpoint import header, weight_files

_NAMES = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings"})
"""Names of embedding layers in architectures; the last part of the tensor's name is ``weight``."""

# NumPy has no bfloat16: its bits are the upper half of a float32.
_STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """An embedding table in a file. Rows are read on demand."""

    file: Path
    offset: int
    shape: tuple[int, int]
    dtype: str

    def rows(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [n, width]; raises ``BadRequest`` for an id beyond the table."""
        wanted = checked(ids, self.shape[0])
        table = np.memmap(
            self.file, dtype=_STORED[self.dtype], mode="r", offset=self.offset, shape=self.shape
        )
        found = table[wanted]
        if self.dtype == "BF16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float32)


def locate(folder: Path, weights: str) -> TokenVectors:
    """Finds the table by its tensor name. Of several (an encoder's, a draft head's) the one nearest
    to the root of the model is used. Raises ``Unsupported`` where there is none in plain floating
    point, ``WeightsError`` for a damaged file."""
    found: dict[tuple[int, str], TokenVectors] = {}
    for file in weight_files(folder, weights):
        tensors = header(file, weights)
        data_bytes = max((t["data_offsets"][1] for t in tensors.values()), default=0)
        start = file.stat().st_size - data_bytes
        for name, tensor in tensors.items():
            parts = name.split(".")
            if len(parts) < 2 or parts[-1] != "weight" or parts[-2] not in _NAMES:
                continue
            if tensor["dtype"] in _STORED and len(tensor["shape"]) == 2:
                rows, width = tensor["shape"]
                found[len(parts), name] = TokenVectors(
                    file, start + tensor["data_offsets"][0], (rows, width), tensor["dtype"]
                )
    if not found:
        raise Unsupported(weights, "vectors")
    return found[min(found)]


def checked(ids: Sequence[int], rows: int) -> np.ndarray:
    """The ids as an array; raises ``BadRequest`` for one beyond a table of ``rows`` embeddings."""
    wanted = np.asarray(ids, dtype=np.int64)
    wrong = wanted[(wanted < 0) | (wanted >= rows)]
    if len(wrong):
        raise BadRequest(f"token id {wrong[0]} has no embedding; the model has {rows}", "ids")
    return wanted
