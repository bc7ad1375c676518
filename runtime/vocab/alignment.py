"""Maps the tokens of one vocabulary to those of another.

Computed in seconds for an ordered pair of tokenizers and cached: it depends on the tokenizers only,
not on weights.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from runtime.tokenization.tokenizer import Tokenizer
from runtime.vocab import npz_cache

FORMAT = 1
"""Cache format; raise it when the same tokenizers would give another alignment."""

_BATCH = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """From vocabulary A to vocabulary B."""

    to: np.ndarray
    """int32 [V_a]: the id in B of the token with the same bytes, else the first token of B's
    encoding of these bytes; -1 for control tokens, unused ids and bytes that B cannot encode."""
    exact: np.ndarray
    """bool [V_a]: whether ``to`` has the same bytes."""
    pieces: np.ndarray
    """uint8 [V_a]: number of tokens of B's encoding (255: or more); 0 where ``to`` is -1."""
    overlap: int
    """Number of byte strings that are tokens in both."""
    seconds: float
    """Time of the computation."""
    file: Path
    cached: bool
    """Whether it was read from ``file``."""

    @property
    def tokens(self) -> int:
        """Number of A's tokens with an image in B."""
        return int((self.to >= 0).sum())

    @property
    def coverage(self) -> float:
        """Share of exact images among A's tokens with an image in B."""
        return float(self.exact.sum()) / max(self.tokens, 1)

    @property
    def mean_pieces(self) -> float:
        """Mean number of B's tokens for a token of A."""
        return float(self.pieces.sum(dtype=np.int64)) / max(self.tokens, 1)

    @property
    def bytes_on_disk(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0


def align(a: Tokenizer, b: Tokenizer) -> Alignment:
    """The alignment from the cache, or computed and cached. May take seconds: call it in a thread.
    Raises ``WeightsError`` where the cache cannot be written."""
    prints = (a.definition.fingerprint, b.definition.fingerprint)
    key = f"{FORMAT} {prints[0]} {prints[1]}"
    file = npz_cache.place("alignments", f"{prints[0][:16]}-{prints[1][:16]}-{FORMAT}.npz")
    found = _read(file, key, a, b)
    if found is not None:
        return found
    alignment = _make(a, b, file)
    npz_cache.save(
        file,
        key,
        {
            "to": alignment.to,
            "exact": alignment.exact,
            "pieces": alignment.pieces,
            "overlap": np.array(alignment.overlap),
            "seconds": np.array(alignment.seconds),
        },
    )
    return alignment


def _read(file: Path, key: str, a: Tokenizer, b: Tokenizer) -> Alignment | None:
    arrays = npz_cache.load(file, key)
    if arrays is None or arrays.keys() != {"to", "exact", "pieces", "overlap", "seconds"}:
        return None
    to, exact, pieces = arrays["to"], arrays["exact"], arrays["pieces"]
    whole = all(array.shape == (a.vocab_size,) for array in (to, exact, pieces))
    if not whole or (to.dtype, exact.dtype, pieces.dtype) != (np.int32, np.bool_, np.uint8):
        return None
    if not (-1 <= to.min(initial=-1) and to.max(initial=-1) < b.vocab_size):
        return None
    overlap, seconds = int(arrays["overlap"]), float(arrays["seconds"])
    return Alignment(to, exact, pieces, overlap, seconds, file, cached=True)


def _make(a: Tokenizer, b: Tokenizer, file: Path) -> Alignment:
    started = time.monotonic()
    to = np.full(a.vocab_size, -1, dtype=np.int32)
    pieces = np.zeros(a.vocab_size, dtype=np.uint8)
    known = b.ids_of
    others = []
    for token, data in enumerate(a.token_bytes):
        if data in known:
            to[token], pieces[token] = known[data], 1
        elif data:
            others.append(token)
    exact = to >= 0
    for first in range(0, len(others), _BATCH):
        batch = others[first : first + _BATCH]
        written = _written([a.token_bytes[token] for token in batch], b)
        for token, ids in zip(batch, written, strict=True):
            if ids:
                to[token], pieces[token] = ids[0], min(len(ids), 255)
    overlap = len({a.token_bytes[token] for token in np.flatnonzero(exact).tolist()})
    alignment = Alignment(to, exact, pieces, overlap, 0.0, file, cached=False)
    return replace(alignment, seconds=time.monotonic() - started)


def _written(data: Sequence[bytes], b: Tokenizer) -> list[list[int]]:
    """B's encoding of each byte string; empty for one that B cannot encode from its start.

    Whole characters are encoded as text, parts of characters with B's single-byte tokens, where it
    has them.
    """
    parts = [_parts(one) for one in data]
    texts = [part for one in parts for part in one if isinstance(part, str)]
    encoded = iter(b.encode_each(texts))
    result: list[list[int]] = []
    for one in parts:
        ids: list[int] = []
        for part in one:
            if isinstance(part, str):
                ids += next(encoded)
            else:
                ids += [b.ids_of.get(bytes([byte]), -1) for byte in part]
        unwritable = not ids or ids[0] < 0 or ids[0] in b.special_ids
        result.append([] if unwritable else ids)
    return result


def _parts(data: bytes) -> list[str | bytes]:
    """Split into whole characters (as text) and the bytes between them."""
    try:
        return [data.decode()]
    except UnicodeDecodeError:
        pass
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    text = decoder.decode(data, final=True)
    parts: list[str | bytes] = []
    for character in text:
        if "\udc80" <= character <= "\udcff":
            byte = character.encode("utf-8", errors="surrogateescape")
            last = parts[-1] if parts else ""
            if isinstance(last, bytes):
                parts[-1] = last + byte
            else:
                parts.append(byte)
        elif parts and isinstance(parts[-1], str):
            parts[-1] += character
        else:
            parts.append(character)
    return parts
