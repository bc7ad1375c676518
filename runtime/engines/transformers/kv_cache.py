"""KV cache: growing buffers of keys and values, and a prefix cache bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch

from runtime.engines.transformers.radix_tree import Node, RadixTree

SMALLEST = 64
"""Smallest growth of a buffer in tokens."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Layout of the keys and values of one model."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    def bytes(self, capacity: int) -> int:
        """Bytes of a buffer of ``capacity`` tokens."""
        return self.layers * 2 * self.heads * capacity * self.head_dim * self.dtype.itemsize


def capacity_for(tokens: int) -> int:
    """The buffer size, in tokens, that holds ``tokens``. Sizes grow by an eighth to a
    quarter, so that appends stay cheap and little space is unused."""
    step = max(SMALLEST, 1 << max(0, tokens.bit_length() - 3))
    return -(-tokens // step) * step


class KeyValues:
    """One sequence's keys and values, ``[layers, 2, kv_heads, capacity, head_dim]``."""

    def __init__(self, shape: Shape, tokens: int) -> None:
        self.shape = shape
        self._buffer = self._new(capacity_for(tokens))

    def _new(self, capacity: int) -> torch.Tensor:
        shape = self.shape
        size = (shape.layers, 2, shape.heads, capacity, shape.head_dim)
        return torch.empty(size, dtype=shape.dtype, device=shape.device)

    @property
    def capacity(self) -> int:
        return self._buffer.shape[3]

    @property
    def bytes(self) -> int:
        return self.shape.bytes(self.capacity)

    def reserve(self, tokens: int, held: int) -> None:
        """Grows to at least ``tokens``; the first ``held`` tokens are copied."""
        if tokens > self.capacity:
            grown = self._new(capacity_for(tokens))
            grown[:, :, :, :held].copy_(self._buffer[:, :, :, :held])
            self._buffer = grown

    def fork(self, held: int, tokens: int) -> KeyValues:
        """A copy of the first ``held`` tokens with a capacity of at least ``tokens``."""
        copy = KeyValues(self.shape, max(held, tokens))
        copy._buffer[:, :, :, :held].copy_(self._buffer[:, :, :, :held])
        return copy

    def places(self, start: int, stop: int) -> tuple[torch.Tensor, ...]:
        """For each layer a view of those tokens, ``[2, kv_heads, stop - start, head_dim]``."""
        return self._buffer[:, :, :, start:stop].unbind(0)

    def span(self, start: int, stop: int) -> tuple[torch.Tensor, ...]:
        """Keys of layer 0, values of layer 0, keys of layer 1 …: ``[1, kv_heads, n, head_dim]``."""
        return self._buffer[:, :, None, :, start:stop].flatten(0, 1).unbind(0)


@dataclass(eq=False, slots=True)
class Entry:
    """A finished sequence in the prefix cache."""

    length: int
    """Tokens whose keys and values are held."""
    kv: KeyValues
    leaf: Node[Entry] | None = None


class PrefixCache:
    """LRU cache of finished sequences; ``bytes`` never exceeds ``bound``."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.bytes = 0
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._tree: RadixTree[Entry] = RadixTree()

    def __len__(self) -> int:
        return len(self._entries)

    def longest(self, ids: np.ndarray) -> tuple[Entry | None, int]:
        """The entry with the longest common prefix with ``ids`` (int64 [n]), and its length."""
        found, shared = self._tree.longest(ids)
        if found is not None:
            self._entries.move_to_end(id(found))
        return found, shared

    def take(self, entry: Entry) -> KeyValues:
        """Removes the entry and returns its buffer."""
        del self._entries[id(entry)]
        assert entry.leaf is not None
        self._tree.remove(entry.leaf)
        self.bytes -= entry.kv.bytes
        return entry.kv

    def put(self, ids: np.ndarray, kv: KeyValues, bound: int) -> None:
        """Adds a sequence unless an entry begins with it; ``bound`` may be below the cache's."""
        bound = min(bound, self.bound)
        if len(ids) == 0 or kv.bytes > bound:
            return
        nearest, shared = self.longest(ids)
        if shared == len(ids):
            return
        if nearest is not None and shared == nearest.length:
            self.take(nearest)
        entry = Entry(len(ids), kv)
        entry.leaf = self._tree.add(ids, entry)
        self._entries[id(entry)] = entry
        self.bytes += kv.bytes
        self.shrink(bound)

    def shrink(self, bound: int) -> None:
        """Drops the least recently used entries until at most ``bound`` bytes are held."""
        while self._entries and self.bytes > bound:
            self.take(next(iter(self._entries.values())))
