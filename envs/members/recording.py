"""Recording a query log: the answers of members to questions, along routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envs.members.base import AnswerSource
from runtime.data.query_log import Ask, Reply


def record(
    answers: AnswerSource, questions: Sequence[str], members: Sequence[str], depth: int
) -> list[tuple[Ask, Reply]]:
    """Every answer that routes of up to ``depth`` calls can lead to, each requested once. After a
    failed call the route continues from the answer before it, as it would live.

    Answers that differ multiply: with n members there are up to n + n^2 + ... + n^depth for each
    question, and few where members agree.
    """
    recorded: dict[Ask, Reply] = {}
    ahead = [Ask(member, question) for question in questions for member in members]
    for _ in range(depth):
        for ask, reply in zip(ahead, answers.ask(ahead), strict=True):
            recorded[ask] = reply
        continued = dict.fromkeys(
            (ask.question, recorded[ask].text) for ask in ahead if recorded[ask].text is not None
        )
        ahead = [
            ask
            for question, text in continued
            for member in members
            if (ask := Ask(member, question, text)) not in recorded
        ]
        if not ahead:
            break
    return list(recorded.items())


def parts(
    answers: AnswerSource,
    questions: Sequence[str],
    members: Sequence[str],
    depth: int,
    batch: int = 16,
) -> Iterator[list[tuple[Ask, Reply]]]:
    """``record`` for ``batch`` questions at a time; yields one list for each question, so that
    progress can be shown and saved."""
    for start in range(0, len(questions), batch):
        part = questions[start : start + batch]
        rows: dict[str, list[tuple[Ask, Reply]]] = {question: [] for question in part}
        for ask, reply in record(answers, part, members, depth):
            rows[ask.question].append((ask, reply))
        yield from rows.values()
