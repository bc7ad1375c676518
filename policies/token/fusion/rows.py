"""Members' distributions at one place, and the fused one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from runtime.types.outputs import Distribution
from runtime.vocab.union import END_KEY, NO_KEY, Union


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One member's next-token distribution at one place, without ids that have no text."""

    ids: np.ndarray
    """int64 [k], the member's own."""
    keys: np.ndarray
    """int64 [k], the same tokens in the union of the vocabularies."""
    logprobs: np.ndarray
    """float64 [k]"""
    ordered: bool = False
    """Whether the ids ascend, as those of a whole row do."""

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The index of each of ``ids`` in the row, int64; -1 where it is missing."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        if self.ordered:
            at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
            return np.where(self.ids[at] == ids, at, -1)
        same = ids[:, None] == self.ids[None, :]
        return np.where(same.any(axis=1), same.argmax(axis=1), -1)

    @property
    def best(self) -> int:
        """The member's most probable key; ``NO_KEY`` for an empty row."""
        return int(self.keys[np.argmax(self.logprobs)]) if len(self.keys) else NO_KEY

    @property
    def top(self) -> float:
        """The highest probability; 0 for an empty row."""
        return float(np.exp(self.logprobs.max())) if len(self.keys) else 0.0

    def first(self, k: int) -> Row:
        """The ``k`` most probable tokens; ties: lowest id first."""
        if k >= len(self.ids):
            return self
        order = leading(self.ids, self.logprobs, k)
        return Row(self.ids[order], self.keys[order], self.logprobs[order])

    def of_key(self, key: int) -> float:
        """The probability of all tokens with this key."""
        return float(np.exp(self.logprobs[self.keys == key]).sum())


def leading(ids: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    """Indices of the ``k`` highest values, best first; ties: lowest id first."""
    k = min(k, len(ids))
    least = np.partition(values, len(ids) - k)[len(ids) - k]
    good = np.flatnonzero(values >= least)
    order: np.ndarray = good[np.lexsort((ids[good], -values[good]))[:k]]
    return order


def row_of(distribution: Distribution, union: Union, member: str, *, no_end: bool) -> Row:
    """A member's distribution with union keys; ``no_end`` removes tokens that end the answer."""
    logprobs = distribution.logprobs.astype(np.float64)
    if distribution.ids is None:
        keys = union.map(member)[: len(logprobs)]
        ids = np.arange(len(keys), dtype=np.int64)
        logprobs = logprobs[: len(keys)]
    else:
        ids, keys = distribution.ids, union.keys(member, distribution.ids)
    valid = keys != NO_KEY
    if distribution.ids is not None:
        # An id requested by name may also be among the best, by rounding.
        _, first = np.unique(distribution.ids, return_index=True)
        if len(first) < len(ids):
            once = np.zeros(len(ids), dtype=bool)
            once[first] = True
            valid &= once
    if no_end:
        valid &= keys != END_KEY
    return Row(ids[valid], keys[valid], logprobs[valid], ordered=distribution.ids is None)


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """A fused distribution at one place."""

    keys: np.ndarray
    """int64 [m], each once, ascending."""
    logprobs: np.ndarray
    """float64 [m]; their probabilities sum to 1 or less, as mass outside the rows is missing."""


def normalised(keys: np.ndarray, scores: np.ndarray) -> Fused:
    """The softmax of scores (nats) over these keys."""
    top = scores.max()
    return Fused(keys, scores - top - np.log(np.exp(scores - top).sum()))


class Fuser(ABC):
    """Fuses for one request. Stateless between places: rows in, distribution out."""

    heavy: ClassVar[bool] = False
    """Whether fusing is slow enough to need a thread."""
    gate: str | None = None
    """The member that is called first, and alone where it is ``sure``."""

    def __init__(self, union: Union, weights: Mapping[str, float]) -> None:
        self.union = union
        self._weights = dict(weights)

    def speaks(self, member: str) -> bool:
        """Whether a member has any weight."""
        return self._weights[member] > 0 or not any(self._weights.values())

    def weights(self, rows: Mapping[str, Row]) -> dict[str, float]:
        """The weights of the members in ``rows``, with sum 1."""
        total = sum(self._weights[name] for name in rows)
        if total <= 0:
            return dict.fromkeys(rows, 1 / len(rows))
        return {name: self._weights[name] / total for name in rows}

    def sure(self, row: Row) -> bool:
        """Whether the gate's row is used alone."""
        return False

    def missing(self, rows: Mapping[str, Row], scored: int | None = None) -> dict[str, list[int]]:
        """member -> its ids whose logprobs are still needed. ``scored``: a key whose probability is
        needed whether it could be chosen or not."""
        return {}

    @abstractmethod
    def fuse(self, rows: Mapping[str, Row], scored: int | None = None) -> Fused:
        """The distribution to choose from; ``scored`` adds that key as a candidate."""
