"""Converts vLLM's logprobs to our types, and finds rows missing because of the prefix cache.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.engines.sampling import distribution as cut
from runtime.errors import EngineFault
from runtime.types.outputs import ALL, Distribution, Tokens


@dataclass(frozen=True, slots=True)
class Row:
    """Logprobs at one position for the token that follows."""

    logprob: float
    """Of the actual next token."""
    top: Distribution | None = None


def row(flat: Any, index: int, top_k: int) -> Row:
    """Row ``index`` of a ``vllm.logprobs.FlatLogprobs``: first the token itself, then the best.

    The token may be repeated among the best; after vLLM merged outputs for a slow reader each id
    occurs once. Raises ``EngineFault`` for a row without values.
    """
    start, end = flat.start_indices[index], flat.end_indices[index]
    if end <= start:
        raise EngineFault("vLLM returned no logprobs for a requested position")
    logprob = float(flat.logprobs[start])
    if not top_k:
        return Row(logprob)
    ids, places = np.unique(
        np.asarray(flat.token_ids[start:end], dtype=np.int64), return_index=True
    )
    values = np.asarray(flat.logprobs[start:end], dtype=np.float32)[places]
    return Row(logprob, distribution(ids, values, top_k))


def distribution(ids: np.ndarray, logprobs: np.ndarray, top_k: int) -> Distribution:
    """``ids [k]`` and their logprobs in vLLM's order as a ``Distribution``; ties: lowest id
    first. With ``ALL`` the ids are a permutation of the vocabulary and become a dense row."""
    if top_k == ALL:
        dense = np.empty(len(ids), dtype=np.float32)
        dense[ids] = logprobs
        return Distribution(None, dense)
    order = np.lexsort((ids, -logprobs))[:top_k]
    return Distribution(ids[order], logprobs[order])


def prompt_rows(out: Any, fed: int, start: int, top_k: int) -> list[Row]:
    """Rows of the ``fed`` prompt tokens from ``start`` on, without those missing because of the
    cache.

    Tokens are counted from the end: one of vLLM's runners omits the rows of cached positions, the
    other leaves them uninitialised.
    """
    if start >= fed:
        return []
    flat = out.prompt_logprobs
    # A preempted prompt that found more of itself in the cache has even fewer rows.
    first = max(start + missing_rows(start, out.num_cached_tokens or 0), fed - len(flat) + 1)
    return [row(flat, len(flat) - fed + i, top_k) for i in range(first, fed)]


def tops(rows: list[Row], top_k: int) -> tuple[Distribution, ...] | None:
    """The alternatives of each row; ``None`` with ``top_k`` 0."""
    if not top_k:
        return None
    return tuple(row.top for row in rows if row.top is not None)


def reduced(
    dense: Sequence[Distribution], top_k: int, also: Sequence[Tokens]
) -> tuple[Distribution, ...]:
    """Dense rows reduced to their ``top_k`` best and the ids of ``also``."""
    return tuple(
        cut(row.logprobs, top_k, also[place] if place < len(also) else ())
        for place, row in enumerate(dense)
    )


def missing_rows(start: int, cached: int) -> int:
    """Number of missing rows of a text that is scored from token ``start`` on.

    The row of token ``i`` is computed at position ``i - 1``; vLLM computes positions from
    ``cached`` on.
    """
    return max(0, cached - (start - 1))


def uncached_ranges(start: int, end: int, block: int) -> list[tuple[int, int]]:
    """Splits the tokens ``start`` to ``end`` into ranges whose rows cannot come from the cache.

    The row of a range's first token is computed in one block, and its last token is not fed to the
    model. So the prompt of a range ends in or with that block. The cache holds whole blocks and
    never the prompt's last token, so it holds none of the range's rows.
    """
    cut = []
    while start < end:
        stop = min(((start - 1) // block + 1) * block + 1, end)
        cut.append((start, stop))
        start = stop
    return cut
