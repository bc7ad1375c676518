"""White-space words: when a word is complete, for engines and span methods."""

from __future__ import annotations

import re
import unicodedata

_UNSPACED = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "BOPOMOFO",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
    "BALINESE",
    "JAVANESE",
    "YI ",
    "TAI ",
    "NEW TAI",
    "IDEOGRAPHIC",
    "KANGXI",
    "VARIATION SELECTOR",
)
"""Prefixes of Unicode names of characters that are never inside a spaced word: letters of scripts
without spaces between words, and the variation selector that ends an emoji."""

_WORD = re.compile(r"\S+")


def complete_words(text: str) -> int:
    """Number of complete words: runs of non-white-space followed by white space."""
    words = len(text.split())
    return words if not text or text[-1].isspace() else words - 1


def cut_words(text: str, n: int) -> str:
    """``text`` up to the end of its ``n``-th word.

    Leading white space is kept; the white space after the ``n``-th word belongs to the next span.
    A text of fewer words is returned whole.
    """
    if n <= 0:
        return ""
    for count, word in enumerate(_WORD.finditer(text), start=1):
        if count == n:
            return text[: word.end()]
    return text


def cut_partial_word(text: str) -> str:
    """``text`` without a last word that may be incomplete, and without the white space before it.

    Only a text that ends in a letter, mark or digit of a script that separates words by spaces
    can end inside a word; a text of one word is kept. (SpecFuse, arXiv 2412.07380: segments of a
    fixed number of tokens are cut back to whole words.)
    """
    if not text or not _may_continue(text[-1]):
        return text
    start = len(text)
    while start and not text[start - 1].isspace():
        start -= 1
    return text[:start].rstrip() or text


def _may_continue(char: str) -> bool:
    wordlike = char.isalnum() or unicodedata.category(char) in ("Mn", "Mc")
    return wordlike and not unicodedata.name(char, "").startswith(_UNSPACED)
