"""Questions with their answers, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Question:
    question: str
    answer: str
    steps: tuple[str, ...] = ()
    """The reasoning lines of a right answer."""
    relations: tuple[str, ...] = ()
    """The kind of fact that each step states."""
    reference: str | None = None
    """A whole right answer, as it should be written."""
    group: str | None = None
    """Questions of one group are about the same: what is learnt from one is no proof on another."""


def read_questions(path: Path, limit: int | None = None) -> list[Question]:
    """Rows of a JSONL file with ``question`` and ``answer``."""
    try:
        lines = path.read_text().splitlines()
    except OSError as fault:
        raise ConfigError(
            f"cannot read questions from {path} ({fault.strerror}); give a JSONL file with "
            "--questions"
        ) from None
    questions = []
    for number, line in enumerate(lines[:limit], 1):
        try:
            row = json.loads(line)
            questions.append(
                Question(
                    row["question"],
                    row["answer"],
                    tuple(row.get("steps", ())),
                    tuple(row.get("relations", ())),
                    row.get("reference"),
                    row.get("group"),
                )
            )
        except (json.JSONDecodeError, KeyError, TypeError) as fault:
            raise ConfigError(
                f"{path}:{number}: each line must be a JSON object with question and answer "
                f"({fault!r})"
            ) from None
    return questions
