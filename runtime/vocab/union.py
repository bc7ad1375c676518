"""The union of several vocabularies: tokens are identified by their bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from runtime.rng import END, token_keys
from runtime.tokenization.tokenizer import Tokenizer, TokenizerDefinition

END_KEY: Final = 0
"""The key of the end of the answer (any EOS id)."""
NO_KEY: Final = -1
"""The key of ids without bytes: control tokens and the model's ids beyond its tokenizer."""


class Union:
    """The union of the members' vocabularies. A *key* is a token's place in it.

    Every EOS id of every member has the key ``END_KEY``. The map of a member's ids to keys is a
    0/1 matrix with at most one 1 in each row, stored as an index vector.
    """

    tokens: list[bytes]
    """The bytes of each key."""

    def __init__(self, vocabularies: Mapping[str, tuple[Tokenizer, tuple[int, ...], int]]) -> None:
        """``vocabularies``: member -> (tokenizer, EOS ids, the model's vocabulary size)."""
        self.tokens = [END]
        self._places: dict[bytes, int] = {}
        self._keys: dict[str, np.ndarray] = {}
        self._ids: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        maps: dict[tuple[TokenizerDefinition, tuple[int, ...], int], np.ndarray] = {}
        for name, (tokenizer, eos_ids, size) in vocabularies.items():
            kind = (tokenizer.definition, eos_ids, size)
            if kind not in maps:
                maps[kind] = self._map(tokenizer, eos_ids, size)
            self._keys[name] = maps[kind]

    def keys(self, member: str, ids: np.ndarray) -> np.ndarray:
        """The keys of a member's ids, int64; ``NO_KEY`` for those without bytes."""
        result: np.ndarray = self._keys[member][ids]
        return result

    def map(self, member: str) -> np.ndarray:
        """The keys of all of a member's ids: int64 [vocab_size]."""
        return self._keys[member]

    def key(self, token: bytes) -> int:
        """The key of exact bytes (``b""``: the end); ``NO_KEY`` when no member has the token."""
        return END_KEY if token == END else self._places.get(token, NO_KEY)

    def ids(self, member: str, key: int) -> list[int]:
        """A member's ids with this key, ascending."""
        if member not in self._ids:
            order = np.argsort(self._keys[member], kind="stable")
            self._ids[member] = (order, self._keys[member][order])
        order, keys = self._ids[member]
        low, high = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
        result: list[int] = order[low:high].tolist()
        return result

    def lacking(self, key: int, rows: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
        """For each member its ids with this key that are not in its ``rows``; members without such
        ids are left out."""
        missing = {n: [i for i in self.ids(n, key) if i not in ids] for n, ids in rows.items()}
        return {name: ids for name, ids in missing.items() if ids}

    @cached_property
    def noise_keys(self) -> np.ndarray:
        """The keys for keyed noise (runtime/rng.py): uint64 [n]."""
        return token_keys(self.tokens)

    def _map(self, tokenizer: Tokenizer, eos_ids: tuple[int, ...], size: int) -> np.ndarray:
        keys = np.full(size, NO_KEY, dtype=np.int64)
        for token, data in enumerate(tokenizer.token_bytes[:size]):
            if not data or token in tokenizer.special_ids:
                continue
            place = self._places.get(data)
            if place is None:
                place = self._places[data] = len(self.tokens)
                self.tokens.append(data)
            keys[token] = place
        keys[[i for i in eos_ids if i < size]] = END_KEY
        return keys


@lru_cache(maxsize=8)
def _union(kinds: tuple[tuple[str, _Kind], ...]) -> Union:
    return Union({name: (kind.tokenizer, kind.eos_ids, kind.size) for name, kind in kinds})


class _Kind:
    """A vocabulary as a cache key."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: tuple[int, ...], size: int) -> None:
        self.tokenizer, self.eos_ids, self.size = tokenizer, eos_ids, size
        self._id = (tokenizer.definition.fingerprint, eos_ids, size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kind) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)


def union_of(vocabularies: Sequence[tuple[str, Tokenizer, tuple[int, ...], int]]) -> Union:
    """The union of (member, tokenizer, EOS ids, vocabulary size). The last eight unions are cached,
    since building one takes a second for large vocabularies."""
    return _union(tuple((name, _Kind(t, eos, size)) for name, t, eos, size in vocabularies))
