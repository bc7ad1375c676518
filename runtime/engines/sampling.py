"""Sampling of the next token and stopping conditions; pure, on numpy rows, for all engines."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from runtime.errors import BadRequest
from runtime.rng import gumbel
from runtime.text.words import complete_words
from runtime.types.outputs import ALL, Distribution, EngineFinish
from runtime.types.sampling import Sampling


def check_sampling(sampling: Sampling) -> None:
    """Raises ``BadRequest`` for invalid values."""
    if sampling.max_tokens < 0:
        raise BadRequest("max_tokens must not be negative", "max_tokens")
    if not sampling.temperature >= 0:
        raise BadRequest("temperature must be at least 0", "temperature")
    if not 0 < sampling.top_p <= 1:
        raise BadRequest("top_p must be above 0 and at most 1", "top_p")
    if sampling.words is not None and sampling.words < 1:
        raise BadRequest("words must be at least 1", "words")
    if not 0 <= sampling.until_below <= 1:
        raise BadRequest("until_below must be from 0 to 1", "until_below")
    if sampling.defer is not None and not 0 <= sampling.defer.threshold <= 1:
        raise BadRequest("threshold must be from 0 to 1", "threshold")
    if "" in sampling.stop:
        raise BadRequest("a stop string must not be empty", "stop")
    check_top_k(sampling.top_k)


def check_top_k(top_k: int, least: int = 0) -> None:
    """Raises ``BadRequest`` below ``least``, unless ``ALL``."""
    if top_k < least and top_k != ALL:
        raise BadRequest(f"top_k must be at least {least}, or ALL", "top_k")


def uniform(seed: int, position: int) -> float:
    """Uniform noise of one position, in [0, 1): the same in every chunk, batch and process."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2.0**53


def nucleus(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """Ids, ascending, of the smallest set of most probable tokens whose mass is at least ``top_p``
    (Holtzman et al., arXiv 1904.09751); ties go to the lowest ids."""
    # Tokens below this floor have less than 1 - top_p together, so none of them is in the set:
    # few of a large vocabulary are left to sort. Sorting values is faster than sorting ids.
    floor = (1.0 - top_p) / len(probabilities)
    values = np.sort(probabilities[probabilities >= floor])[::-1]
    size = int(np.searchsorted(np.cumsum(values), top_p)) + 1
    if size > len(values):
        return np.arange(len(probabilities))
    above = np.flatnonzero(probabilities > values[size - 1])
    equal = np.flatnonzero(probabilities == values[size - 1])
    return np.sort(np.concatenate((above, equal[: size - len(above)])))


def pick(
    row: np.ndarray,
    sampling: Sampling,
    position: int,
    banned: Sequence[int] = (),
    keys: np.ndarray | None = None,
) -> int:
    """The token at ``position``, from logits or logprobs ``row [vocab]``.

    One uniform number per position is mapped by the inverse of the cumulative distribution in id
    order, so that rounding errors of the row change the token only near a boundary of two tokens.
    With ``sampling.text_noise_from`` and the tokens' ``keys`` (runtime/rng.py), the Gumbel noise
    of their bytes is used instead.
    """
    if banned:
        row = row.copy()
        row[list(banned)] = -np.inf
    if sampling.temperature == 0:
        return int(row.argmax())
    scaled = (row.astype(np.float64) - float(row.max())) / sampling.temperature
    probabilities = np.exp(scaled)
    probabilities /= probabilities.sum()
    if sampling.top_p < 1:
        candidates = nucleus(probabilities, sampling.top_p)
    else:
        candidates = np.flatnonzero(probabilities)
    if sampling.text_noise_from is not None and keys is not None:
        # A model may have more outputs than its tokenizer has tokens.
        keyed = candidates[candidates < len(keys)]
        if len(keyed):
            noise = gumbel(sampling.seed, position - sampling.text_noise_from, keys[keyed])
            return int(keyed[np.argmax(np.log(probabilities[keyed]) + noise)])
    mass = np.cumsum(probabilities[candidates])
    index = int(np.searchsorted(mass, uniform(sampling.seed, position) * mass[-1], side="right"))
    return int(candidates[min(index, len(candidates) - 1)])


def distribution(logprobs: np.ndarray, top_k: int, also: Sequence[int] = ()) -> Distribution:
    """The ``top_k`` best of a dense row of logprobs (ties: lowest id first), then the ids of
    ``also``; with ``ALL`` the whole row."""
    if top_k == ALL:
        return Distribution(None, np.array(logprobs, dtype=np.float32))
    order = np.argsort(-logprobs, kind="stable")[:top_k].astype(np.int64)
    ids = np.concatenate((order, np.asarray(also, dtype=np.int64))) if len(also) else order
    return Distribution(ids, logprobs[ids].astype(np.float32))


class Ending:
    """Stopping conditions of one generation: EOS, stop strings, words, length."""

    def __init__(
        self, sampling: Sampling, eos_ids: Sequence[int], token_bytes: Sequence[bytes], room: int
    ) -> None:
        self._limit = min(sampling.max_tokens, room)
        self._eos = () if sampling.ignore_eos else tuple(eos_ids)
        self._token_bytes = token_bytes
        self._stops = [stop.encode() for stop in sampling.stop]
        self._words = sampling.words
        self._least = math.log(sampling.until_below) if sampling.until_below > 0 else -math.inf
        self._written = 0
        self._text = bytearray()

    def push(self, token: int, logprob: float = 0.0) -> EngineFinish | None:
        """Adds the next token; returns the finish reason if it is the last one. Stop strings are
        matched on bytes, since they may span tokens and parts of characters."""
        self._written += 1
        if token in self._eos:
            return "eos"
        piece = self._token_bytes[token] if token < len(self._token_bytes) else b""
        before = len(self._text)
        self._text += piece
        for stop in self._stops:
            if self._text.find(stop, max(0, before - len(stop) + 1)) >= 0:
                return "stop"
        if self._words is not None and piece:
            if complete_words(self._text.decode("utf-8", errors="replace")) >= self._words:
                return "words"
        return "length" if self._written >= self._limit or logprob < self._least else None
