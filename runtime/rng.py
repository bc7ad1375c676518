"""Gumbel noise keyed by what a token says, so that all vocabularies draw the same.

The token with the highest ``logprob / temperature + noise`` is a draw from the tempered
distribution (the Gumbel-max trick: Maddison et al., arXiv 1411.0030). The noise of a token depends
on the seed, its place in the answer and its bytes only: whoever draws at that place, from however
many candidates, from whichever vocabulary, meets the same noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np

END: Final = b""
"""Stands for the end of the answer, whichever token a model writes it with."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))


def derive_seed(seed: int, *what: int | str) -> int:
    """Another seed, 63 bits, for each of ``what`` a seed is needed; the seed itself for nothing."""
    if not what:
        return seed
    digest = hashlib.blake2b("/".join(map(str, (seed, *what))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def token_keys(tokens: Iterable[bytes]) -> np.ndarray:
    """A number for each token's bytes, uint64 [n]."""
    digests = (hashlib.blake2b(token, digest_size=8).digest() for token in tokens)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def gumbel(seed: int, place: int, keys: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise of the tokens with these ``keys`` at one place: float64 [n]."""
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
