"""vLLM's answers as ours: rows of logprobs, and which of them the prefix cache swallowed. Pure."""

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
    """What the model says at one position about the token that follows."""

    logprob: float
    """Of the token that does follow."""
    top: Distribution | None = None


def row(flat: Any, index: int, top_k: int) -> Row:
    """Row ``index`` of a ``vllm.logprobs.FlatLogprobs``: first the token itself, then the best.

    The token stands among the best once more if it is one of them; not so where vLLM has put the
    outputs of a slow reader together, which leaves each id once.
    """
    start, end = flat.start_indices[index], flat.end_indices[index]
    if end <= start:
        raise EngineFault("vLLM gave no logprobs for a position that was asked for")
    logprob = float(flat.logprobs[start])
    if not top_k:
        return Row(logprob)
    ids, places = np.unique(
        np.asarray(flat.token_ids[start:end], dtype=np.int64), return_index=True
    )
    told = np.asarray(flat.logprobs[start:end], dtype=np.float32)[places]
    return Row(logprob, distribution(ids, told, top_k))


def distribution(ids: np.ndarray, logprobs: np.ndarray, top_k: int) -> Distribution:
    """``ids [k]`` and their logprobs in vLLM's order as a ``Distribution``; equals: lowest id
    first. With ``ALL`` the ids are a permutation of the vocabulary and become a dense row."""
    if top_k == ALL:
        dense = np.empty(len(ids), dtype=np.float32)
        dense[ids] = logprobs
        return Distribution(None, dense)
    order = np.lexsort((ids, -logprobs))[:top_k]
    return Distribution(ids[order], logprobs[order])


def given(out: Any, fed: int, start: int, top_k: int) -> list[Row]:
    """Rows of the prompt tokens from ``start`` on, without those that the cache swallowed.

    Tokens are counted from the end: one of vLLM's runners leaves out the rows of cached positions,
    the other fills them with what happened to be in memory.
    """
    if start >= fed:
        return []
    flat = out.prompt_logprobs
    # A prompt that was interrupted and found more of itself in the cache has fewer rows still.
    first = max(start + swallowed(start, out.num_cached_tokens or 0), fed - len(flat) + 1)
    return [row(flat, len(flat) - fed + i, top_k) for i in range(first, fed)]


def tops(rows: list[Row], top_k: int) -> tuple[Distribution, ...] | None:
    """The alternatives of each row, where any were asked for."""
    if not top_k:
        return None
    return tuple(row.top for row in rows if row.top is not None)


def reduced(
    dense: Sequence[Distribution], top_k: int, also: Sequence[Tokens]
) -> tuple[Distribution, ...]:
    """Whole rows cut down to their ``top_k`` best and the ids asked for also."""
    return tuple(
        cut(row.logprobs, top_k, also[place] if place < len(also) else ())
        for place, row in enumerate(dense)
    )


def swallowed(start: int, cached: int) -> int:
    """How many rows of a text scored from token ``start`` on are missing.

    The row of token ``i`` is made at position ``i - 1``; vLLM computes the positions from
    ``cached`` on.
    """
    return max(0, cached - (start - 1))


def pieces(start: int, end: int, block: int) -> list[tuple[int, int]]:
    """Cuts the tokens ``start`` to ``end`` into ranges that the cache cannot swallow.

    The row of a range's first token is made at the start of a block or later, and its last token is
    not fed to the model. So the prompt of a range ends within or with that block, and a cache of
    whole blocks that leaves the prompt's last token to be computed holds none of its rows.
    """
    cut = []
    while start < end:
        stop = min(((start - 1) // block + 1) * block + 1, end)
        cut.append((start, stop))
        start = stop
    return cut
