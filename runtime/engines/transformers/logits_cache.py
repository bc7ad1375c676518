"""Cache of recent rows of logits, so that logprobs of more of their tokens need no forward pass.

Methods that look up a token of one member in the row of another (UniTe, DeePEn, PackLLM) know the
tokens only from the rows themselves, and call a second time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runtime.types.outputs import ALL, Distribution, Score, Tokens


@dataclass(frozen=True, slots=True)
class CachedRow:
    """The logits after one context."""

    logits: torch.Tensor
    """float32 [vocab]"""
    norm: float
    """logsumexp of the logits"""


class LogitsCache:
    """LRU cache of rows by their whole token context; thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._bytes = limit_bytes, 0
        self._rows: OrderedDict[bytes, CachedRow] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        return self._bytes

    def put(self, context: Sequence[int], logits: torch.Tensor, norm: float) -> None:
        """Adds a row; evicts the oldest rows beyond the limit."""
        size = _size(logits)
        if size > self._limit:
            return
        with self._lock:
            key = _key(context)
            if (old := self._rows.pop(key, None)) is not None:
                self._bytes -= _size(old.logits)
            while self._bytes + size > self._limit:
                _, oldest = self._rows.popitem(last=False)
                self._bytes -= _size(oldest.logits)
            self._rows[key] = CachedRow(logits, norm)
            self._bytes += size

    def find(self, contexts: Sequence[Sequence[int]]) -> list[CachedRow] | None:
        """The rows of all ``contexts``; ``None`` if one is missing."""
        with self._lock:
            found = [self._rows.get(_key(context)) for context in contexts]
        rows = [row for row in found if row is not None]
        return rows if len(rows) == len(found) else None

    def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int,
        also: Sequence[Sequence[Tokens]],
    ) -> list[Score] | None:
        """The result of ``Engine.score``, if all its rows are cached."""
        scores = []
        for tokens, wanted in zip(continuations, also, strict=True):
            whole = [*prompt, *tokens]
            rows = self.find([whole[: len(prompt) + n] for n in range(len(tokens))])
            if rows is None:
                return None
            logprobs = [
                float(row.logits[t]) - row.norm for row, t in zip(rows, tokens, strict=True)
            ]
            scores.append(
                Score(tuple(logprobs), tuple(_distributions(rows, top_k, wanted)), len(whole))
            )
        return scores

    def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens]
    ) -> list[Distribution] | None:
        """The result of ``Engine.next_token``, if all its rows are cached."""
        rows = self.find(prompts)
        return None if rows is None else _distributions(rows, top_k, also)


def _distributions(
    rows: Sequence[CachedRow], top_k: int, also: Sequence[Tokens]
) -> list[Distribution]:
    if not rows:
        return []
    logits = torch.stack([row.logits for row in rows])
    norms = torch.tensor([row.norm for row in rows], device=logits.device)
    return tops(logits, norms, top_k, also)


def tops(
    logits: torch.Tensor, norms: torch.Tensor, top_k: int, also: Sequence[Tokens]
) -> list[Distribution]:
    """Logprobs of each row of ``logits [n, vocab]``: the ``top_k`` best (ties: lowest id first),
    then the ids of ``also``; with ``ALL`` the dense row."""
    if top_k == ALL:
        dense = (logits - norms[:, None]).cpu().numpy()
        return [Distribution(None, np.array(row, dtype=np.float32)) for row in dense]
    best = logits.topk(min(top_k, logits.shape[1]), dim=-1)
    values = (best.values - norms[:, None]).cpu().numpy()
    distributions = []
    for place, (ids, logprobs) in enumerate(zip(best.indices.cpu().numpy(), values, strict=True)):
        order = np.lexsort((ids, -logprobs))
        ids, logprobs = ids[order], logprobs[order]
        if len(wanted := also[place] if also else ()):
            extra = logits[place, torch.as_tensor(wanted, device=logits.device)] - norms[place]
            ids = np.concatenate((ids, np.asarray(wanted, dtype=np.int64)))
            logprobs = np.concatenate((logprobs, extra.cpu().numpy()))
        distributions.append(Distribution(ids, logprobs))
    return distributions


def _key(context: Sequence[int]) -> bytes:
    return np.asarray(context, dtype=np.int64).tobytes()


def _size(logits: torch.Tensor) -> int:
    return logits.numel() * logits.element_size()
