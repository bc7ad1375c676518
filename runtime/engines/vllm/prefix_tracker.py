"""Which prefixes an engine's cache probably holds, kept by whoever sends the requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from runtime.types.outputs import Tokens


class PrefixTracker:
    """Remembers the whole blocks of texts that were computed, the least recently used forgotten
    first. Only a guess: the cache itself may have dropped them, which costs time, not truth."""

    def __init__(self, block: int, capacity: int = 65_536) -> None:
        self._block, self._capacity = block, capacity
        self._known: OrderedDict[int, None] = OrderedDict()

    def add(self, tokens: Tokens) -> None:
        """``tokens`` were computed just now."""
        for key in self._keys(tokens):
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def missing(self, tokens: Tokens) -> int:
        """Tokens after the longest known prefix."""
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
