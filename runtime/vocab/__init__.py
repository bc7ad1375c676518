"""What vocabularies and embeddings of different LLMs have to do with each other.

Prepared once, kept in memory and in the cache (``alignments/`` and ``vectors/`` under its root,
which may be removed at any time), and shared by all requests of a process. Needs no torch.
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
    """From vocabulary ``a`` to vocabulary ``b``; takes seconds the first time."""
    key = (a.definition, b.definition)
    return await _pairs.get(key, lambda: asyncio.to_thread(align, a, b))


async def table(engine: Engine) -> Table:
    """An engine's embedding table with the key of what it is; ``Unsupported`` without one."""
    return await fetch(engine)


async def vector_table(engine: Engine) -> np.ndarray:
    """float16 [V, width], memory-mapped."""
    return (await fetch(engine)).rows
