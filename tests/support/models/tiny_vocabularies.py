"""Tiny vocabularies and rows for fusions that can be checked by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from policies.token.fusion.rows import Fused, Row, row_of
from runtime.tokenization.tokenizer import Tokenizer, vocabulary_tokenizer
from runtime.types.outputs import Distribution
from runtime.vocab.union import Union

CAT = Tokenizer(vocabulary_tokenizer([" cat", " dog", " the"]))
"""Whole words: ids 0, 1, 2."""
DOG = Tokenizer(vocabulary_tokenizer([" ca", " do", "t", "g", " dog"]))
"""Pieces of words: ids 0 to 4."""


def union(**tokenizers: Tokenizer) -> Union:
    return Union({n: (t, t.eos_ids, t.vocab_size) for n, t in tokenizers.items()})


def rows(vocabulary: Union, **members: tuple[Tokenizer, Mapping[str, float]]) -> dict[str, Row]:
    """member -> (its tokenizer, probabilities of its tokens; "" is the end)."""
    made = {}
    for name, (tokenizer, shares) in members.items():
        ids = [tokenizer.ids_of[t.encode()] if t else tokenizer.eos_ids[0] for t in shares]
        order = np.argsort([-p for p in shares.values()], kind="stable")
        row = Distribution(
            np.array(ids, dtype=np.int64)[order],
            np.log(np.array(list(shares.values()), dtype=np.float64))[order].astype(np.float64),
        )
        made[name] = row_of(row, vocabulary, name, no_end=False)
    return made


def shares(fused: Fused, vocabulary: Union) -> dict[str, float]:
    """token -> probability."""
    pairs: Sequence[tuple[int, float]] = list(zip(fused.keys, fused.logprobs, strict=True))
    return {vocabulary.tokens[k].decode(): float(np.exp(value)) for k, value in pairs}
