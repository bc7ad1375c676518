"""Exact-match grading: the answer in a text, compared with the expected one."""

from __future__ import annotations

import re


def given_answer(text: str, pattern: str | None) -> str | None:
    """The first group of the pattern's last match; without a pattern the whole text."""
    if pattern is None:
        return text
    matches = list(re.finditer(pattern, text, re.MULTILINE))
    return matches[-1][1] if matches else None


def same_answer(given: str | None, expected: str) -> bool:
    """Whether both are equal up to case, white space and final full stops."""
    if given is None:
        return False
    return _normalized(given) == _normalized(expected)


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
