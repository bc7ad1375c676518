"""A text built from pieces of exact bytes, as one member's token ids.

Token-level methods need a token border after every piece for every member, whatever its vocabulary,
also inside a word. So the open word is encoded piece by piece; once a proven split point of the
tokenizer (runtime/tokenization/split_points.py) closes it, it is encoded again as a whole, since
models read their own tokenisation best. The ids depend on the pieces only, not on whether they
arrive one by one or many at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runtime.tokenization.tokenizer import Tokenizer

_LOOK_BACK: Final = 2
"""Characters before an offset that decide whether it is a split point."""


class PieceContext:
    """A prompt and the pieces after it."""

    def __init__(
        self, tokenizer: Tokenizer, prompt_ids: Sequence[int], pieces: Sequence[bytes] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self._settled = list(prompt_ids)
        """The prompt and all closed words."""
        self._open: list[bytes] = []
        self._before = ""
        """The last characters of the closed words."""
        for piece in pieces:
            self.append(piece)

    @property
    def ids(self) -> list[int]:
        """Prompt and answer."""
        return [*self._settled, *_spelled(self.tokenizer, self._open)]

    def append(self, piece: bytes) -> None:
        """Adds one piece; ``b""`` changes nothing."""
        if not piece:
            return
        if self._open and self._closes(piece):
            self._settled += _written(self.tokenizer, self._open)
            self._before = _last_characters(self._before, self._open)
            self._open = []
        self._open.append(piece)

    def fork(self, pieces: Sequence[bytes] = ()) -> PieceContext:
        """A copy with ``pieces`` appended."""
        other = PieceContext(self.tokenizer, self._settled)
        other._open, other._before = list(self._open), self._before
        for piece in pieces:
            other.append(piece)
        return other

    def ahead(self, pieces: Sequence[bytes]) -> Ahead:
        """The contexts before and after each of ``pieces``; this context is not changed."""
        fork = PieceContext(self.tokenizer, ())
        fork._open, fork._before = list(self._open), self._before
        tails = [fork.ids]
        for piece in pieces:
            fork.append(piece)
            tails.append(fork.ids)
        return Ahead(list(self._settled), tails)

    def spelled(self, pieces: Sequence[bytes]) -> tuple[Ahead, list[bool]]:
        """The contexts before each of ``pieces``, with the text encoded as a whole, and whether a
        token ends there. Where none does, the open word is encoded piece by piece."""
        known = [*self._open, *pieces]
        data = b"".join(known)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as broken:
            text = data[: broken.start].decode("utf-8")
        ids = self.tokenizer.encode(text)
        ends, length = {0: 0}, 0
        for count, token in enumerate(ids, start=1):
            length += len(self.tokenizer.token_bytes[token])
            ends[length] = count
        borders, tails = [], []
        at = sum(map(len, self._open))
        for place, piece in enumerate([*pieces, b""]):
            borders.append(at in ends)
            here = known[: len(self._open) + place]
            tails.append(ids[: ends[at]] if at in ends else _spelled(self.tokenizer, here))
            at += len(piece)
        return Ahead(list(self._settled), tails), borders

    def _closes(self, piece: bytes) -> bool:
        """Whether a proven split point lies before ``piece``."""
        try:
            left = self._before + b"".join(self._open).decode("utf-8")
        except UnicodeDecodeError:
            return False
        right = piece[:4].decode("utf-8", errors="ignore")
        return bool(left and right) and self.tokenizer.splits.at(left + right[0], len(left))


@dataclass(frozen=True, slots=True)
class Ahead:
    """Contexts with a common prefix: context ``j`` is ``base + tails[j]``."""

    base: list[int]
    tails: list[list[int]]

    def cover(self, places: Sequence[int]) -> Cover:
        """The fewest token sequences such that each of these contexts is a prefix of one."""
        order = sorted(places, key=lambda place: len(self.tails[place]), reverse=True)
        branches: list[list[int]] = []
        covered: dict[int, tuple[int, int]] = {}
        for place in order:
            tail = self.tails[place]
            fits = [n for n, branch in enumerate(branches) if branch[: len(tail)] == tail]
            covered[place] = (fits[0] if fits else len(branches), len(tail))
            if not fits:
                branches.append(tail)
        shared = min((len(self.tails[place]) for place in places), default=0)
        first = branches[0] if branches else []
        while any(branch[:shared] != first[:shared] for branch in branches):
            shared -= 1
        if not self.base and not shared and branches:
            raise ValueError(
                "an empty context has no next token; the prompt needs at least one token"
            )
        return Cover(
            [*self.base, *first[:shared]],
            [branch[shared:] for branch in branches],
            {place: (number, at - shared) for place, (number, at) in covered.items()},
        )


@dataclass(frozen=True, slots=True)
class Cover:
    """``prompt + branches[b][:n]`` is the context of each place whose entry is ``(b, n)``."""

    prompt: list[int]
    branches: list[list[int]]
    places: dict[int, tuple[int, int]]


def spell(tokenizer: Tokenizer, piece: bytes) -> list[int]:
    """The ids of exact bytes: their own token if there is one, else those of the text, with single
    byte tokens for incomplete characters."""
    own = tokenizer.ids_of.get(piece)
    if own is not None:
        return [own]
    ids: list[int] = []
    for text, rest in _characters(piece):
        ids += tokenizer.encode(text) if text else []
        ids += [tokenizer.ids_of[byte] for byte in _bytes(rest) if byte in tokenizer.ids_of]
    return ids


def _spelled(tokenizer: Tokenizer, pieces: Sequence[bytes]) -> list[int]:
    return [i for piece in pieces for i in spell(tokenizer, piece)]


def _written(tokenizer: Tokenizer, pieces: Sequence[bytes]) -> list[int]:
    """The ids of a closed word."""
    try:
        return tokenizer.encode(b"".join(pieces).decode("utf-8"))
    except UnicodeDecodeError:
        return _spelled(tokenizer, pieces)


def _last_characters(before: str, pieces: Sequence[bytes]) -> str:
    return (before + b"".join(pieces).decode("utf-8", errors="replace"))[-_LOOK_BACK:]


def _characters(data: bytes) -> list[tuple[str, bytes]]:
    """Runs of whole characters, each with the invalid bytes after it."""
    runs: list[tuple[str, bytes]] = []
    while data:
        try:
            runs.append((data.decode("utf-8"), b""))
            break
        except UnicodeDecodeError as wrong:
            runs.append((data[: wrong.start].decode("utf-8"), data[wrong.start : wrong.end]))
            data = data[wrong.end :]
    return runs


def _bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]
