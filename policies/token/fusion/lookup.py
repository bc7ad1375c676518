"""The logprobs that a member gives to tokens of other vocabularies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from policies.token.fusion.rows import Row
from runtime.text.pieces import spell
from runtime.tokenization.tokenizer import Tokenizer
from runtime.vocab.union import END_KEY, Union


class Lookup:
    """Maps keys to a member's tokens: the one with the same bytes, else the first token of its
    spelling of them."""

    def __init__(self, union: Union, tokenizers: Mapping[str, Tokenizer]) -> None:
        self._union = union
        self._tokenizers = dict(tokenizers)
        self._known: dict[str, dict[int, int | None]] = {name: {} for name in tokenizers}

    def id(self, member: str, key: int) -> int | None:
        """The member's id for ``key``; ``None`` when it cannot spell it, and for ``END_KEY``, which
        may be several ids."""
        known = self._known[member]
        if key not in known:
            ids = spell(self._tokenizers[member], self._union.tokens[key])
            known[key] = ids[0] if ids else None
        return known[key]

    def missing(self, rows: Mapping[str, Row], keys: Sequence[int]) -> dict[str, list[int]]:
        """member -> ids for ``keys`` missing from its row; for ``END_KEY`` all its EOS."""
        wanted: dict[str, list[int]] = {}
        for name, row in rows.items():
            ids = self._ids(name, keys)
            ends = self._union.ids(name, END_KEY) if END_KEY in keys else []
            named = np.unique(np.concatenate((ids[ids >= 0], np.asarray(ends, dtype=np.int64))))
            lacking = named[row.find(named) < 0]
            if len(lacking):
                wanted[name] = lacking.tolist()
        return wanted

    def logprobs(self, member: str, row: Row, keys: Sequence[int]) -> np.ndarray:
        """float64 [keys]: the member's logprobs, -inf where it has none; the end sums all EOS."""
        values = np.full(len(keys), -np.inf)
        at = row.find(self._ids(member, keys))
        values[at >= 0] = row.logprobs[at[at >= 0]]
        if END_KEY in keys:
            own = row.logprobs[row.keys == END_KEY]
            values[list(keys).index(END_KEY)] = np.logaddexp.reduce(own) if len(own) else -np.inf
        return values

    def _ids(self, member: str, keys: Sequence[int]) -> np.ndarray:
        """int64 [keys]; -1 where the member has no single id."""
        ids = [self.id(member, key) for key in keys]
        return np.asarray([-1 if i is None else i for i in ids], dtype=np.int64)


def candidates(rows: Mapping[str, Row], k: int, scored: int | None = None) -> list[int]:
    """The keys of every member's ``k`` best tokens, and ``scored``; ascending."""
    keys = {int(key) for row in rows.values() for key in row.first(k).keys}
    return sorted(keys if scored is None else keys | {scored})
