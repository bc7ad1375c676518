"""What a text answers, and whether that is what was wanted."""

from __future__ import annotations

import re


def given_answer(text: str, pattern: str | None) -> str | None:
    """The first group of the pattern's last match; without a pattern the whole text."""
    if pattern is None:
        return text
    found = list(re.finditer(pattern, text, re.MULTILINE))
    return found[-1][1] if found else None


def same_answer(given: str | None, wanted: str) -> bool:
    """Equal but for case, white space and a full stop at the end."""
    if given is None:
        return False
    return _plain(given) == _plain(wanted)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
