"""EVA's maths: a sparse matrix maps distributions from one vocabulary to another.

Bridging the Gap between Different Vocabularies for LLM Ensemble (arXiv 2404.09492).

1. An orthogonal map of one embedding space onto the other is fitted to the tokens that both
   vocabularies have (Procrustes, by one SVD).
2. Similarity of a source token x and a pivot token y: CSLS, 2 cos(x, y) minus the mean cosine of y
   with its nearest source tokens (1 of them, as in the official README). The term of x is left
   out, as there: it is the same for all y.
3. Each source token keeps its 10 best pivot tokens of at least 0.1. A row of more than 5 whose
   values hardly differ (deviation up to 0.01) is dropped. Control tokens map to themselves. Rows
   are normalised to one.
4. Online, each member's distribution goes through its matrix; a member whose best token is not
   among the 3 best of any other is left out of that step; the others are averaged.

Shared tokens are the dictionary for the map; in the matrix they are treated like all others, as in
the paper.

Deviations:
- Input embeddings instead of the output layer's: they are the same numbers where a model ties them.
- The orthogonal step only. VecMap's ``--supervised`` also whitens, and weighs by the singular
  values; its normalisation (unit length, centred, unit length) is kept.
- Widths may differ (the paper's must not): singular vectors of the cross-covariance, as many as the
  smaller width, span the common space to which both sides are mapped. With equal widths this is
  equivalent to the orthogonal map.
- Tokens without bytes are left out on both sides before the best are picked, instead of after.
  Every EOS goes to the pivot's first EOS, BOS to BOS, other control tokens nowhere.

Computed in blocks, never V x V, and cached on disk. Two products of V_source x V_pivot x width:
minutes on two CPU cores for 262,144 x 49,152 x 576. Memory: V_pivot x width x 4 bytes and about
500 MB.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from scipy.sparse import csr_array

from policies.token.numerics.similarity import (
    CHUNK,
    Side,
    best,
    blocks,
    common_space,
    nearest,
    unit,
)
from runtime.session.connection import Connection
from runtime.vocab import Table, aligned, npz_cache
from runtime.vocab.single_flight import SingleFlight

FORMAT: Final = 1
"""Version of the cached files; increase it when the same tables give another matrix."""
_BLOCK_NUMBERS: Final = 48 * 2**20
"""Similarities held at a time, 4 bytes each."""

_made: SingleFlight[csr_array] = SingleFlight(limit=16)


async def projection(
    source: Connection,
    ours: Table,
    pivot: Connection,
    theirs: Table,
    *,
    top: int = 10,
    threshold: float = 0.1,
    neighbours: int = 1,
) -> csr_array:
    """Rows of weights, float32 [V_source, V_pivot], from the cache or computed in a thread;
    ``ours`` and ``theirs`` are the embeddings of the source and of the pivot."""
    pairs = await aligned(source.tokenizer, pivot.tokenizer)
    settings = f"{FORMAT} {ours.key} {theirs.key} {top} {threshold!r} {neighbours}"

    def make() -> csr_array:
        key = hashlib.sha256(settings.encode()).hexdigest()[:32]
        file = npz_cache.place("projections", f"{key}.npz")
        shape = (len(ours.rows), len(theirs.rows))
        cached = _read(npz_cache.load(file, settings), shape)
        if cached is not None:
            return cached
        matrix = build(
            Side.of(ours.rows, _live(source, ours)),
            Side.of(theirs.rows, _live(pivot, theirs)),
            np.where(pairs.exact, pairs.to, -1),
            _controls(source, pivot),
            top=top,
            threshold=threshold,
            neighbours=neighbours,
        )
        arrays = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
        npz_cache.save(file, settings, arrays)
        return matrix

    return await _made.get(settings, lambda: asyncio.to_thread(make))


def build(
    source: Side,
    pivot: Side,
    same: np.ndarray,
    controls: Mapping[int, int],
    *,
    top: int,
    threshold: float,
    neighbours: int,
) -> csr_array:
    """``same[t]`` is the pivot's id of source token ``t``, -1 without one; ``controls`` are source
    ids that stand for one pivot id each."""
    left, right = common_space(source, pivot, same)
    targets = np.concatenate(
        [unit(pivot.directions(ids) @ right) for ids in blocks(pivot.live, CHUNK)]
    )
    size = max(1, _BLOCK_NUMBERS // max(len(targets), 1))

    def mapped() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for ids in blocks(source.live, size):
            yield ids, unit(source.directions(ids) @ left)

    near = nearest((block for _, block in mapped()), targets, neighbours)
    rows, columns, values = [], [], []
    for ids, block in mapped():
        places, hits, similarity = best(block, targets, near, top, threshold)
        rows.append(ids[places])
        columns.append(pivot.live[hits])
        values.append(similarity)
    rows.append(np.array(list(controls), dtype=np.int64))
    columns.append(np.array(list(controls.values()), dtype=np.int64))
    values.append(np.ones(len(controls), dtype=np.float32))
    shape = (len(source.vectors), len(pivot.vectors))
    entries = (np.concatenate(rows), np.concatenate(columns))
    matrix = csr_array((np.concatenate(values), entries), shape=shape, dtype=np.float32)
    matrix.sum_duplicates()
    sums = np.add.reduceat(np.append(matrix.data, 0), matrix.indptr[:-1])
    matrix.data /= np.repeat(sums, np.diff(matrix.indptr))
    return matrix


MANY: Final = 4
"""A row with more than 1 / ``MANY`` of a vocabulary's tokens is multiplied as a dense vector."""


def project(
    matrix: csr_array, ids: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pivot ids, int64, best first (ties: lowest id), with their probabilities, float64.

    They sum to the mass of tokens that have a row; the rest is lost and not renormalised.
    """
    share, rows = np.asarray(probabilities, dtype=np.float64), np.asarray(ids, dtype=np.int64)
    if MANY * len(rows) >= matrix.shape[0]:  # most of the matrix: selecting rows would be slower
        whole = np.zeros(matrix.shape[0])
        np.add.at(whole, rows, share)
        dense = matrix.T @ whole
        nonzero = np.flatnonzero(dense)
        order = nonzero[np.lexsort((nonzero, -dense[nonzero]))]
        return order.astype(np.int64), dense[order]
    carried = csr_array(share[None, :]) @ matrix[rows]
    carried.sum_duplicates()
    order = np.lexsort((carried.indices, -carried.data))
    return carried.indices[order].astype(np.int64), carried.data[order]


def faithful(tops: Mapping[str, np.ndarray], drop: int) -> list[str]:
    """The members whose best token is among the ``drop`` best of another; all, if there is none.

    ``tops`` holds each member's pivot ids, best first.
    """
    included = [
        member
        for member, ids in tops.items()
        if len(ids)
        and any(ids[0] in other[:drop] for name, other in tops.items() if name != member)
    ]
    return included or list(tops)


def _read(arrays: Mapping[str, np.ndarray] | None, shape: tuple[int, int]) -> csr_array | None:
    if arrays is None or arrays.keys() != {"data", "indices", "indptr"}:
        return None
    try:
        matrix = csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
    except ValueError:
        return None
    return matrix


def _live(connection: Connection, own: Table) -> np.ndarray:
    """Ids that stand for bytes and have an embedding."""
    names = connection.tokenizer.token_bytes[: len(own.rows)]
    return np.flatnonzero(np.fromiter(map(len, names), dtype=np.int64, count=len(names)))


def _controls(source: Connection, pivot: Connection) -> dict[int, int]:
    ends = dict.fromkeys(source.spec.eos_ids, pivot.spec.eos_ids[0]) if pivot.spec.eos_ids else {}
    ours, theirs = (c.tokenizer.token_id(c.tokenizer.definition.bos) for c in (source, pivot))
    if ours is None or theirs is None:
        return ends
    size = (source.spec.vocab_size, pivot.spec.vocab_size)
    return {ours: theirs, **ends} if ours < size[0] and theirs < size[1] else ends
