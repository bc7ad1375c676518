"""Recording a query log: the answers of members to questions, along routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envs.members.base import AnswerSource
from runtime.data.query_log import Ask, Reply


def record(
    answers: AnswerSource, questions: Sequence[str], members: Sequence[str], depth: int
) -> list[tuple[Ask, Reply]]:
    """Every answer that routes of up to ``depth`` calls can lead to, each asked for once. Members
    that fail are asked by later calls as they would be live: after the answer before.

    Answers that differ multiply: with n members there are up to n + n^2 + ... + n^depth for each
    question, and few where members agree.
    """
    found: dict[Ask, Reply] = {}
    ahead = [Ask(member, question) for question in questions for member in members]
    for _ in range(depth):
        for ask, reply in zip(ahead, answers.ask(ahead), strict=True):
            found[ask] = reply
        told = dict.fromkeys(
            (ask.question, found[ask].text) for ask in ahead if found[ask].text is not None
        )
        ahead = [
            ask
            for question, text in told
            for member in members
            if (ask := Ask(member, question, text)) not in found
        ]
        if not ahead:
            break
    return list(found.items())


def parts(
    answers: AnswerSource,
    questions: Sequence[str],
    members: Sequence[str],
    depth: int,
    gather_or_cancel: int = 16,
) -> Iterator[list[tuple[Ask, Reply]]]:
    """``record`` for some questions at a time; one list for each question, so that progress can be
    told and nothing recorded is lost."""
    for start in range(0, len(questions), gather_or_cancel):
        part = questions[start : start + gather_or_cancel]
        rows: dict[str, list[tuple[Ask, Reply]]] = {question: [] for question in part}
        for ask, reply in record(answers, part, members, depth):
            rows[ask.question].append((ask, reply))
        yield from rows.values()
