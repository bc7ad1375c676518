"""Where the text of tokens lies, when characters may be spread over several of them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable


def token_places(pieces: Iterable[bytes]) -> list[tuple[int, int]]:
    """For each token, given as its bytes: how many characters are complete before it, and how many
    once its own text is.

    The tokens of one character all begin and end where the character does. Bytes that are no
    character count as U+FFFD does in the text.
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
