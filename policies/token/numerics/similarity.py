"""Similarities between the embeddings of two vocabularies, a block of tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

SAME: Final = 0.01
MANY: Final = 5
"""A row of more than ``MANY`` values that deviate by up to ``SAME`` tells nothing."""

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
    kept = np.full((neighbours, len(targets)), -np.inf, dtype=np.float32)
    for block in parts:
        cosines = block @ targets.T
        if neighbours == 1:
            np.maximum(kept[0], cosines.max(axis=0), out=kept[0])
        else:
            both = np.concatenate((kept, cosines))
            kept = np.partition(both, len(both) - neighbours, axis=0)[-neighbours:]
    counted = np.isfinite(kept)  # fewer source tokens than neighbours
    total = np.where(counted, kept, 0).sum(axis=0)
    mean: np.ndarray = total / np.maximum(counted.sum(axis=0), 1)
    return mean.astype(np.float32)


def best(
    block: np.ndarray, targets: np.ndarray, near: np.ndarray, top: int, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The similarities that stay: place in ``block``, place in ``targets``, value; by place."""
    similarity = (2 * block) @ targets.T
    similarity -= near
    bound = np.maximum(_bound(similarity, top), np.float32(threshold))
    places, found = np.nonzero(similarity >= bound[:, None])
    values = similarity[places, found]
    order = np.lexsort((found, -values, places))
    places, found, values = places[order], found[order], values[order]
    starts = np.searchsorted(places, np.arange(len(block)))
    rank = np.arange(len(places)) - starts[places]
    stay = rank < top
    places, found, values = places[stay], found[stay], values[stay]

    count = np.bincount(places, minlength=len(block))
    share = np.maximum(count, 1)
    mean = np.bincount(places, values, len(block)) / share
    variance = np.bincount(places, (values - mean[places]) ** 2, len(block)) / share
    empty = (np.sqrt(variance) <= SAME) & (count > MANY)
    stay = ~empty[places]
    return places[stay], found[stay], values[stay]


def _bound(similarity: np.ndarray, top: int) -> np.ndarray:
    """For each row a value that at least ``top`` of it reach, and few more: the ``top``-th of the
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
