"""The Knowledge Transfer Prompt of DER (arXiv 2412.07448): gives a member the last answer.

The paper's structure: the question, another answer, and the instruction to write a better one
without mentioning it. The wording is our own.
"""

from __future__ import annotations

from string import Formatter
from typing import Final

TRANSFER: Final = (
    "{question}\n\nHere is another answer to this question:\n{previous}\n\n"
    "Take it as advice: keep what is right and correct what is wrong. Give your own complete "
    "answer, and do not mention that there was another."
)


def transfer(question: str, previous: str | None, template: str = TRANSFER) -> str:
    """A member's prompt; the first member gets the bare question."""
    if previous is None:
        return question
    return template.format(question=question, previous=previous)


def checked(template: str) -> str:
    """The template, if it names both texts and nothing else. Raises ``ValueError``."""
    try:
        named = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as broken:
        raise ValueError(f"{broken}; double the braces that stand for themselves") from None
    if named != {"question", "previous"}:
        raise ValueError(
            "a knowledge transfer prompt names {question} and {previous}, and nothing else; "
            f"this one names {', '.join(sorted(named)) or 'neither'}"
        )
    return template
