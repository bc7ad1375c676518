"""Gumbel noise keyed by a token's bytes, so that all vocabularies draw the same token.

The token with the highest ``logprob / temperature + noise`` is a draw from the tempered
distribution (the Gumbel-max trick: Maddison et al., arXiv 1411.0030). The noise of a token depends
only on the seed, the position in the answer and the token's bytes. It is the same for every
member, vocabulary and candidate set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np

END: Final = b""
"""The end of the answer, whichever EOS token a model uses."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))


def derive_seed(seed: int, *what: int | str) -> int:
    """A 63-bit seed derived from ``seed`` and ``what``; ``seed`` itself without ``what``."""
    if not what:
        return seed
    digest = hashlib.blake2b("/".join(map(str, (seed, *what))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def token_keys(tokens: Iterable[bytes]) -> np.ndarray:
    """A hash of each token's bytes, uint64 [n]."""
    digests = (hashlib.blake2b(token, digest_size=8).digest() for token in tokens)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def gumbel(seed: int, place: int, keys: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise at one position for tokens with these ``keys``: float64 [n]."""
    digest = hashlib.blake2b(f"{seed}:{place}".encode(), digest_size=8).digest()
    mixed = keys ^ np.uint64(int.from_bytes(digest, "little"))
    with np.errstate(over="ignore"):  # splitmix64 (Steele et al. 2014): arithmetic modulo 2**64
        mixed = mixed + _GOLDEN
        for shift, factor in _MIX:
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
        mixed ^= mixed >> np.uint64(31)
    uniform = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53  # never 0 or 1
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise
