"""Estimates which prefixes an engine's cache holds, from the requests sent to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from runtime.types.outputs import Tokens


class PrefixTracker:
    """LRU set of the whole blocks of computed texts. Only an estimate: the cache may have evicted
    them, which costs time but changes no result."""

    def __init__(self, block: int, capacity: int = 65_536) -> None:
        self._block, self._capacity = block, capacity
        self._known: OrderedDict[int, None] = OrderedDict()

    def add(self, tokens: Tokens) -> None:
        """Records that ``tokens`` were computed."""
        for key in self._keys(tokens):
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def missing(self, tokens: Tokens) -> int:
        """Number of tokens after the longest known prefix."""
        blocks = 0
        for key in self._keys(tokens):
            if key not in self._known:
                break
            blocks += 1
        return len(tokens) - blocks * self._block

    def _keys(self, tokens: Tokens) -> Iterator[int]:
        """A hash for each prefix of whole blocks."""
        key = 0
        for end in range(self._block, len(tokens) + 1, self._block):
            key = hash((key, *tokens[end - self._block : end]))
            yield key
