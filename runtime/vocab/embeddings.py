"""Embedding tables of members, fetched once and cached on disk as float16.

Methods use directions only, so half precision (3 decimal digits) is enough. A table of 262,144
tokens of width 640 takes 335 MB of disk and is memory-mapped.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.engines.base import Engine, EngineSpec
from runtime.vocab import npz_cache
from runtime.weights.cache import need_space

FORMAT = 1
CHUNK_IDS = 8192
CHUNK_BYTES = 32 * 2**20
"""Upper bound of a reply, which is one message between processes."""
PROBES = 16

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The input embeddings of one model."""

    key: str
    """Identifies the model, its vocabulary and its weights."""
    rows: np.ndarray
    """float16 [V, width], memory-mapped, read-only."""


async def fetch(engine: Engine) -> Table:
    """An engine's table, from the cache or fetched in chunks.

    ``PROBES`` rows are always fetched, since weights may change under one name. Raises
    ``Unsupported``, ``WeightsError`` where the cache cannot be written.
    """
    spec = engine.spec
    probes = np.linspace(0, spec.vocab_size - 1, min(PROBES, spec.vocab_size)).astype(np.int64)
    sample = _half(await engine.vectors(probes.tolist()))
    fingerprint = await asyncio.to_thread(lambda: spec.tokenizer.fingerprint)
    digest = hashlib.sha256(f"{FORMAT} {spec.model} {fingerprint} {spec.vocab_size} ".encode())
    digest.update(sample.tobytes())
    key = digest.hexdigest()[:32]
    file = npz_cache.place("vectors", f"{key}.npy")
    shape = (spec.vocab_size, sample.shape[1])
    rows = await asyncio.to_thread(_open, file, shape, probes, sample)
    if rows is None:
        await _download(engine, spec, file, shape)
        rows = await asyncio.to_thread(_open, file, shape, probes, sample)
        assert rows is not None, f"{file} was just written"
    return Table(key, rows)


async def _download(engine: Engine, spec: EngineSpec, file: Path, shape: tuple[int, int]) -> None:
    size, width = shape
    chunk = max(1, min(CHUNK_IDS, CHUNK_BYTES // (4 * width)))
    # Written, not mapped: a full disk is then an error, not a signal that kills the process.
    with npz_cache.draft(file) as path, path.open("wb") as stream:
        need_space(file.parent, 2 * size * width, spec.model)
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for first in range(0, size, chunk):
            part = await engine.vectors(range(first, min(first + chunk, size)))
            await asyncio.to_thread(stream.write, _half(part).tobytes())


def _half(rows: np.ndarray) -> np.ndarray:
    return np.clip(rows, -_LARGEST, _LARGEST).astype(np.float16)


def _open(
    file: Path, shape: tuple[int, int], probes: np.ndarray, sample: np.ndarray
) -> np.ndarray | None:
    """The table, unless it is missing, damaged or of other weights."""
    try:
        rows = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(rows, np.memmap) or rows.shape != shape or rows.dtype != np.float16:
        return None
    return rows if np.array_equal(rows[probes], sample, equal_nan=True) else None
