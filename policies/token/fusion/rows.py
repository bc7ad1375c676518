"""What members say of one place, and what a method makes of it."""

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
    """One member's next-token distribution at one place; ids that write nothing are left out."""

    ids: np.ndarray
    """int64 [k], the member's own."""
    keys: np.ndarray
    """int64 [k], the same tokens in the union of the vocabularies."""
    logprobs: np.ndarray
    """float64 [k]"""
    ordered: bool = False
    """The ids ascend, as those of a whole row do."""

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Where each of ``ids`` stands in the row; -1: it does not."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        if self.ordered:
            at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
            return np.where(self.ids[at] == ids, at, -1)
        same = ids[:, None] == self.ids[None, :]
        return np.where(same.any(axis=1), same.argmax(axis=1), -1)

    @property
    def best(self) -> int:
        """The key that the member itself would choose; ``NO_KEY`` when it can choose nothing."""
        return int(self.keys[np.argmax(self.logprobs)]) if len(self.keys) else NO_KEY

    @property
    def top(self) -> float:
        """The highest probability."""
        return float(np.exp(self.logprobs.max())) if len(self.keys) else 0.0

    def first(self, k: int) -> Row:
        """Its ``k`` best; equals: lowest id first."""
        if k >= len(self.ids):
            return self
        order = leading(self.ids, self.logprobs, k)
        return Row(self.ids[order], self.keys[order], self.logprobs[order])

    def of_key(self, key: int) -> float:
        """The probability of all tokens with this key."""
        return float(np.exp(self.logprobs[self.keys == key]).sum())


def leading(ids: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    """Where the ``k`` highest values are, best first; equals: lowest id first."""
    k = min(k, len(ids))
    least = np.partition(values, len(ids) - k)[len(ids) - k]
    good = np.flatnonzero(values >= least)
    order: np.ndarray = good[np.lexsort((ids[good], -values[good]))[:k]]
    return order


def row_of(told: Distribution, union: Union, member: str, *, no_end: bool) -> Row:
    """A member's row as the union knows it; with ``no_end`` the answer may not end there."""
    logprobs = told.logprobs.astype(np.float64)
    if told.ids is None:
        keys = union.map(member)[: len(logprobs)]
        ids = np.arange(len(keys), dtype=np.int64)
        logprobs = logprobs[: len(keys)]
    else:
        ids, keys = told.ids, union.keys(member, told.ids)
    kept = keys != NO_KEY
    if told.ids is not None:
        # An id asked for by name may have come among the best in the meantime, by rounding.
        _, first = np.unique(told.ids, return_index=True)
        if len(first) < len(ids):
            once = np.zeros(len(ids), dtype=bool)
            once[first] = True
            kept &= once
    if no_end:
        kept &= keys != END_KEY
    return Row(ids[kept], keys[kept], logprobs[kept], ordered=told.ids is None)


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """What a method makes of one place."""

    keys: np.ndarray
    """int64 [m], each once, ascending."""
    logprobs: np.ndarray
    """float64 [m]; their probabilities sum to 1 or less: what was cut off is missing."""


def normalised(keys: np.ndarray, scores: np.ndarray) -> Fused:
    """Scores in nats as a distribution over these keys."""
    top = scores.max()
    return Fused(keys, scores - top - np.log(np.exp(scores - top).sum()))


class Fuser(ABC):
    """One request's way to fuse. Keeps nothing of a place: rows in, distribution out."""

    heavy: ClassVar[bool] = False
    """Whether fusing takes so long that it must not hold up other requests."""
    gate: str | None = None
    """The member that is asked first, and alone where it is ``sure``."""

    def __init__(self, union: Union, weights: Mapping[str, float]) -> None:
        self.union = union
        self._weights = dict(weights)

    def speaks(self, member: str) -> bool:
        """Whether a member has any say."""
        return self._weights[member] > 0 or not any(self._weights.values())

    def weights(self, rows: Mapping[str, Row]) -> dict[str, float]:
        """The weights of the members that spoke; they sum to 1."""
        total = sum(self._weights[name] for name in rows)
        if total <= 0:
            return dict.fromkeys(rows, 1 / len(rows))
        return {name: self._weights[name] / total for name in rows}

    def sure(self, row: Row) -> bool:
        """Whether the gate's row needs no other."""
        return False

    def missing(self, rows: Mapping[str, Row], scored: int | None = None) -> dict[str, list[int]]:
        """Ids of each member whose logprobs are still needed; ``scored`` is a key whose
        probability is to be told, whether it could be chosen or not."""
        return {}

    @abstractmethod
    def fuse(self, rows: Mapping[str, Row], scored: int | None = None) -> Fused:
        """The distribution to choose from. With ``scored`` that key is a candidate too."""
