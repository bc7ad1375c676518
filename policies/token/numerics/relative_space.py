"""DeePEn's maths: distributions of different vocabularies meet in one relative space.

Ensemble Learning for Heterogeneous Large Language Models with Deep Parallel Collaboration
(arXiv 2404.12715). Anchors are the tokens that all vocabularies share. A token's row is
R[t] = softmax(T * L2norm(cos(E[t], E[anchors]))) with T = 100, so every row is a distribution over
the anchors, whichever model it comes from.

1. r_i = p_i R_i for each member, p_i its next-token distribution.
2. r = sum of w_i r_i.
3. The main member's logits z take 5 steps of AdamW (0.9, 0.999; cosine annealing of the learning
   rate over 10 steps down to a quarter; torch's default weight decay 0.01, as the published code)
   that make softmax(z) R_main more like r: least KL(r || softmax(z) R_main).
4. The next token is the best of z.

Cost: no member calls; about 10 rows per member and token, which are cached, then milliseconds.

Deviations, all to avoid matrices of size V x |anchors| (the published code holds one per member:
48 GB for 262,144 tokens and 46,145 anchors):
- Rows are computed on request and cached, least recently used dropped.
- p_i is cut to its k best tokens; the rest of its mass is spread evenly over the anchors, which
  is the mean of the rows of many tokens. (Renormalised instead, a member with a flat distribution
  would look confident in its k best.) The main member's z has one entry for its own rest.
- Only candidates take part in the search: the main member's k best and its tokens with the bytes
  of the others' k best. The published code moves all logits; one that is not a candidate has little
  probability, so its gradient is far below AdamW's epsilon and it stays where it is (see below).
- z starts from log probabilities instead of logits: softmax and the decay depend
  on differences only.
- The search stops when the target is met. Near it AdamW oscillates by the whole rate, driven by
  rounding, so that members that agree would lose what they agree on.
- Arithmetic in float64 on rows that are stored as float32.
The gradient is written out by hand: it is two products with a matrix of some 20 x |anchors|, 3 ms
with the pair below, and a coordinator needs no torch for it.

The divergence is divided by |anchors|, as in the published code (``reduction="mean"``). AdamW does
not care for the scale of a gradient as long as it is well above its epsilon, 1e-8. Here it is not:
with SmolLM2 and Gemma 3 (46,145 anchors) the gradient of a token of probability 0.9 is some 1e-7,
of one of 0.01 some 1e-8, so likely tokens move by nearly the learning rate and unlikely ones stand
still. Without the division all would move by the whole rate, whatever their gradient's size:
another token wins in 13 of 60 random pairs of distributions over the same 12 tokens. The learning
rates of the paper are tuned for the division, so it stays; and since fewer anchors make it smaller,
a limit of the anchors changes the method and not only its memory.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import numpy as np

from runtime.tokenization.tokenizer import Tokenizer

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8
DECAY: Final = 0.01
ANNEALING: Final = 10
FLOOR: Final = 0.25
"""Of the learning rate, at the end of the annealing."""

MET: Final = 1e-4
"""Relative difference from the target within float32 rounding of the rows."""

REST: Final = 1e-6
"""Less mass than this beyond the candidates is rounding."""

_TINY: Final = float(np.finfo(np.float32).tiny)
_BLOCK: Final = 4096


def anchors_of(tokenizers: Mapping[str, Tokenizer], limit: int | None) -> dict[str, np.ndarray]:
    """The ids of the tokens that all vocabularies share, in one order for all: int64 each.

    With a ``limit`` those with the lowest ids, summed as shares of each vocabulary's size, are
    taken: vocabularies list their tokens from frequent to rare, and frequent tokens have the better
    trained embeddings. Parts of characters come last, and equals by a hash of their bytes, so that
    the choice depends on the vocabularies only. Takes about a second for large vocabularies: call
    it in a thread.
    """
    tables = {name: tokenizer.ids_of for name, tokenizer in tokenizers.items()}
    first, *rest = tables.values()
    shared = [data for data in first if all(data in table for table in rest)]
    rank = np.zeros(len(shared))
    for name, table in tables.items():
        rank += np.array([table[data] for data in shared]) / tokenizers[name].vocab_size
    digests = [hashlib.blake2b(data, digest_size=8).digest() for data in shared]
    partial = ["\ufffd" in data.decode(errors="replace") for data in shared]
    order = sorted(range(len(shared)), key=lambda i: (partial[i], rank[i], digests[i]))[:limit]
    return {
        name: np.array([table[shared[i]] for i in order], dtype=np.int64)
        for name, table in tables.items()
    }


class RelativeSpace:
    """Rows of tokens in the space of the anchors, cached. Thread-safe.

    ``tables`` are the members' embeddings [V, width], ``anchors`` the anchors' ids in each
    vocabulary, in one order for all. Holds the anchors' embeddings as float32 (anchors x width x
    4 bytes for each member) and at most ``cache_mb`` of rows.
    """

    def __init__(
        self,
        tables: Mapping[str, np.ndarray],
        anchors: Mapping[str, np.ndarray],
        *,
        temperature: float = 100.0,
        cache_mb: int = 256,
    ) -> None:
        counts = {len(ids) for ids in anchors.values()}
        if len(counts) != 1 or counts == {0}:
            raise ValueError(f"members need the same anchors, at least one; got {sorted(counts)}")
        self.anchors = counts.pop()
        self._tables = dict(tables)
        self._directions = {name: _directions(tables[name], ids) for name, ids in anchors.items()}
        self._temperature = temperature
        self._limit = max(1, cache_mb * 2**20 // (4 * self.anchors))
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the cached rows."""
        return 4 * self.anchors * len(self._kept)

    def rows(self, member: str, ids: np.ndarray) -> np.ndarray:
        """float32 [len(ids), anchors]; each row sums to one. Thread-safe."""
        with self._lock:
            return self._rows(member, ids)

    def _rows(self, member: str, ids: np.ndarray) -> np.ndarray:
        wanted = [(member, token) for token in np.asarray(ids).tolist()]
        missing = list(dict.fromkeys(key for key in wanted if key not in self._kept))
        new: dict[tuple[str, int], np.ndarray] = {}
        if missing:
            made = self._make(member, np.array([token for _, token in missing]))
            new = {key: row.copy() for key, row in zip(missing, made, strict=True)}
        rows = np.empty((len(wanted), self.anchors), dtype=np.float32)
        for place, key in enumerate(wanted):
            rows[place] = new[key] if key in new else self._kept[key]
        for key in dict.fromkeys(wanted):
            if key in new:
                self._kept[key] = new[key]
            self._kept.move_to_end(key)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return rows

    def _make(self, member: str, ids: np.ndarray) -> np.ndarray:
        own = _directions(self._tables[member], ids)
        rows = (own @ self._directions[member].T).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
        rows *= self._temperature
        rows -= rows.max(axis=1, keepdims=True)
        np.exp(rows, out=rows)
        rows /= rows.sum(axis=1, keepdims=True)
        return rows.astype(np.float32)


def fuse(
    space: RelativeSpace,
    main: str,
    rows: Mapping[str, tuple[np.ndarray, np.ndarray]],
    weights: Mapping[str, float],
    candidates: np.ndarray,
    start: np.ndarray,
    *,
    steps: int = 5,
    lr: float = 0.15,
) -> np.ndarray:
    """Logprobs over ``candidates``, ids of ``main``, after the search; float64, best = next token.

    ``rows`` holds each member's k best ids with their probabilities; ``start`` the log
    probabilities of the candidates under ``main``. What either lacks to 1 belongs to all other
    tokens, whose mean row is taken to be even over the anchors; they cannot be chosen.
    """
    total = sum(weights[member] for member in rows)
    even = 1 / space.anchors
    target = np.zeros(space.anchors)
    for member, (ids, probabilities) in rows.items():
        share = np.asarray(probabilities, dtype=np.float64)
        share = share / max(share.sum(), 1.0)
        row = share @ _exact(space.rows(member, ids)) + (1 - share.sum()) * even
        target += weights[member] / total * row
    matrix = _exact(space.rows(main, candidates))
    rest = 1 - np.exp(start).sum()
    if rest > REST:
        matrix = np.vstack([matrix, np.full((1, space.anchors), even)])
        start = np.append(start, np.log(rest))
    result = search(matrix, target, start, steps=steps, lr=lr)[: len(candidates)]
    logprobs: np.ndarray = result - np.log(np.exp(result).sum())
    return logprobs


def search(
    matrix: np.ndarray, target: np.ndarray, start: np.ndarray, *, steps: int, lr: float
) -> np.ndarray:
    """Steps from logits ``start`` towards the z with softmax(z) ``matrix`` = ``target``, float64;
    the log softmax of the result. Least is mean(target * (log target - log(p ``matrix``)))."""
    z = np.asarray(start, dtype=np.float64).copy()
    live = np.isfinite(z)  # what main holds impossible stays so
    mean, square = np.zeros_like(z), np.zeros_like(z)
    for step in range(1, steps + 1):
        p = _softmax(z)
        ratio = target / np.maximum(p @ matrix, _TINY)
        if np.abs(ratio - 1).max() < MET:
            break
        by_p = -(matrix @ ratio) / len(target)
        gradient = p * (by_p - p @ by_p)
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
        move = mean / (1 - BETAS[0] ** step)
        move /= np.sqrt(square / (1 - BETAS[1] ** step)) + EPSILON
        rate = _rate(lr, step - 1)
        z[live] = z[live] * (1 - rate * DECAY) - rate * move[live]
    best: float = z.max()
    logprobs: np.ndarray = z - best - np.log(np.exp(z - best).sum())
    return logprobs


def _rate(lr: float, step: int) -> float:
    low = lr * FLOOR
    return float(low + (lr - low) * (1 + np.cos(np.pi * step / ANNEALING)) / 2)


def _softmax(z: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.exp(z - z.max())
    return shares / shares.sum()


def _exact(rows: np.ndarray) -> np.ndarray:
    """In float64 and summing to one again: what float32 lost would look like a gradient."""
    rows = rows.astype(np.float64)
    rows /= rows.sum(axis=1, keepdims=True)
    return rows


def _directions(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """float32 rows of unit length (0 stays 0), a block at a time: fancy indexing of a whole
    memory-mapped table would hold everything twice."""
    result = np.empty((len(ids), table.shape[1]), dtype=np.float32)
    for first in range(0, len(ids), _BLOCK):
        block = table[ids[first : first + _BLOCK]].astype(np.float32)
        block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), _TINY)
        result[first : first + _BLOCK] = block
    return result
