"""Vocabularies and embeddings of different LLMs: alignments, unions, embedding tables.

Alignments and tables are computed once, cached in memory and on disk (``alignments/`` and
``vectors/`` under the cache root, which may be removed at any time), and shared by all requests of
a process. Needs no torch.
"""

from __future__ import annotations

import asyncio

import numpy as np

from runtime.engines.base import Engine
from runtime.tokenization.tokenizer import Tokenizer
from runtime.vocab.alignment import Alignment, align
from runtime.vocab.embeddings import Table, fetch
from runtime.vocab.single_flight import SingleFlight

__all__ = ["Alignment", "Table", "aligned", "table", "vector_table"]

_pairs: SingleFlight[Alignment] = SingleFlight(limit=64)


async def aligned(a: Tokenizer, b: Tokenizer) -> Alignment:
    """The alignment from vocabulary ``a`` to ``b``; takes seconds the first time."""
    key = (a.definition, b.definition)
    return await _pairs.get(key, lambda: asyncio.to_thread(align, a, b))


async def table(engine: Engine) -> Table:
    """An engine's embedding table with its cache key. Raises ``Unsupported`` without one."""
    return await fetch(engine)


async def vector_table(engine: Engine) -> np.ndarray:
    """An engine's embeddings, float16 [V, width], memory-mapped. Raises as ``table``."""
    return (await fetch(engine)).rows
