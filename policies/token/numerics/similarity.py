"""Similarities between the embeddings of two vocabularies, a block of tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

SAME: Final = 0.01
MANY: Final = 5
"""A row of more than ``MANY`` values with a deviation of at most ``SAME`` is uninformative."""

CHUNK: Final = 8192
"""Tokens whose embeddings are read at a time."""

_GROUPS: Final = 512
_TINY: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One member's part in a projection."""

    vectors: np.ndarray
    """[V, width], any float."""
    live: np.ndarray
    """int64: ids with bytes, ascending."""
    mean: np.ndarray
    """Of the live vectors at unit length."""

    @classmethod
    def of(cls, vectors: np.ndarray, live: np.ndarray) -> Side:
        total = np.zeros(vectors.shape[1])
        for part in blocks(live, CHUNK):
            total += unit(vectors[part].astype(np.float32)).sum(axis=0, dtype=np.float64)
        return cls(vectors, live, (total / max(len(live), 1)).astype(np.float32))

    def directions(self, ids: np.ndarray) -> np.ndarray:
        """float32 [n, width]: unit length, centred, unit length."""
        return unit(unit(self.vectors[ids].astype(np.float32)) - self.mean)


def common_space(source: Side, pivot: Side, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal maps of both sides into one space, in which shared tokens lie closest."""
    shared = source.live[source.live < len(same)]
    images = same[shared]
    shared, images = shared[images >= 0], images[images >= 0]
    within = images < len(pivot.vectors)
    shared, images = shared[within], images[within]
    covariance = np.zeros((source.vectors.shape[1], pivot.vectors.shape[1]))
    for ours, theirs in zip(blocks(shared, CHUNK), blocks(images, CHUNK), strict=True):
        covariance += source.directions(ours).T @ pivot.directions(theirs)
    left, _, right = np.linalg.svd(covariance, full_matrices=False)
    return left.astype(np.float32), np.ascontiguousarray(right.T, dtype=np.float32)


def nearest(parts: Iterator[np.ndarray], targets: np.ndarray, neighbours: int) -> np.ndarray:
    """Mean cosine of each target with its nearest source tokens, float32."""
    highest_cosines = np.full((neighbours, len(targets)), -np.inf, dtype=np.float32)
    for block in parts:
        cosines = block @ targets.T
        if neighbours == 1:
            np.maximum(highest_cosines[0], cosines.max(axis=0), out=highest_cosines[0])
        else:
            both = np.concatenate((highest_cosines, cosines))
            highest_cosines = np.partition(both, len(both) - neighbours, axis=0)[-neighbours:]
    counted = np.isfinite(highest_cosines)  # fewer source tokens than neighbours
    total = np.where(counted, highest_cosines, 0).sum(axis=0)
    mean: np.ndarray = total / np.maximum(counted.sum(axis=0), 1)
    return mean.astype(np.float32)


def best(
    block: np.ndarray, targets: np.ndarray, near: np.ndarray, top: int, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The retained similarities: index in ``block``, index in ``targets``, value; by the first."""
    similarity = (2 * block) @ targets.T
    similarity -= near
    bound = np.maximum(_bound(similarity, top), np.float32(threshold))
    places, columns = np.nonzero(similarity >= bound[:, None])
    values = similarity[places, columns]
    order = np.lexsort((columns, -values, places))
    places, columns, values = places[order], columns[order], values[order]
    starts = np.searchsorted(places, np.arange(len(block)))
    rank = np.arange(len(places)) - starts[places]
    stay = rank < top
    places, columns, values = places[stay], columns[stay], values[stay]

    count = np.bincount(places, minlength=len(block))
    share = np.maximum(count, 1)
    mean = np.bincount(places, values, len(block)) / share
    variance = np.bincount(places, (values - mean[places]) ** 2, len(block)) / share
    empty = (np.sqrt(variance) <= SAME) & (count > MANY)
    stay = ~empty[places]
    return places[stay], columns[stay], values[stay]


def _bound(similarity: np.ndarray, top: int) -> np.ndarray:
    """For each row a value that at least ``top`` entries reach, and few more: the ``top``-th of the
    highest values of groups. Sorting whole rows would take longer than computing them."""
    width = similarity.shape[1]
    if width < _GROUPS or top > _GROUPS // 4:
        return np.full(len(similarity), -np.inf, dtype=np.float32)
    members = width // _GROUPS
    grouped = similarity[:, : members * _GROUPS].reshape(len(similarity), members, _GROUPS)
    highest = grouped.max(axis=1)
    bound: np.ndarray = np.partition(highest, _GROUPS - top, axis=1)[:, _GROUPS - top]
    return bound


def blocks(ids: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """``ids`` in parts of at most ``size``."""
    for first in range(0, len(ids), size):
        yield ids[first : first + size]


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; zeros stay zeros."""
    directions: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
    return directions
