"""Question sets: JSON Lines files of questions with answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import ConfigError

LINE_FORMAT: Final = "each line must be a JSON object with the strings question and answer"


@dataclass(frozen=True, slots=True)
class Question:
    question: str
    answer: str
    steps: tuple[str, ...] = ()
    """The reasoning steps of a correct answer."""
    relations: tuple[str, ...] = ()
    """The relation that each step states."""
    reference: str | None = None
    """A whole correct answer."""
    group: str | None = None
    """Questions of one group share their subject and must not be split over training and test."""


def read_questions(path: Path, limit: int | None = None) -> list[Question]:
    """Rows of a JSONL file with ``question`` and ``answer``. Raises ``ConfigError`` that names
    file, line and remedy."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ConfigError(
            f"cannot read questions from {path} ({fault.strerror}); give a JSONL file with "
            "--questions"
        ) from None
    # Only line feeds: splitlines() also splits at separators that a text may contain.
    lines = [(n, line) for n, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise ConfigError(f"{path} holds no questions; each line is one, as a JSON object")
    return [_question(line, f"{path}:{number}") for number, line in lines[:limit]]


def _question(line: bytes, place: str) -> Question:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as fault:
        raise ConfigError(f"{place}: {fault}; save the file as UTF-8") from None
    except (json.JSONDecodeError, RecursionError) as fault:
        raise ConfigError(f"{place}: {LINE_FORMAT} ({fault})") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: {LINE_FORMAT}")
    for name in ("question", "answer"):
        if not isinstance(row.get(name), str):
            raise ConfigError(f"{place}: {LINE_FORMAT}; {name} is missing or no string")
    for name in ("reference", "group"):
        if not isinstance(row.get(name), str | None):
            raise ConfigError(f"{place}: {name} must be a string")
    for name in ("steps", "relations"):
        value = row.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{place}: {name} must be a list of strings")
    return Question(
        row["question"],
        row["answer"],
        tuple(row.get("steps") or ()),
        tuple(row.get("relations") or ()),
        row.get("reference"),
        row.get("group"),
    )
