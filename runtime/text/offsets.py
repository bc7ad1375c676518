"""Character offsets of tokens, when a character may span several tokens."""

from __future__ import annotations

import codecs
from collections.abc import Iterable


def token_places(pieces: Iterable[bytes]) -> list[tuple[int, int]]:
    """Start and end offset, in characters, of each token, given as its bytes.

    The tokens of one character share its start and end. Bytes that are no valid character count as
    U+FFFD does in the text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    places: list[tuple[int, int]] = []
    open: list[int] = []
    characters = 0
    for piece in pieces:
        open.append(characters)
        characters += len(decoder.decode(piece))
        if not decoder.getstate()[0]:
            places += [(begin, characters) for begin in open]
            open = []
    characters += len(decoder.decode(b"", final=True))
    return places + [(begin, characters) for begin in open]
