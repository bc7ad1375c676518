"""Recording a query log: the answers of members to questions, along routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envs.members.base import AnswerSource
from runtime.data.query_log import MemberCall, Reply


def record(
    answers: AnswerSource, questions: Sequence[str], members: Sequence[str], depth: int
) -> list[tuple[MemberCall, Reply]]:
    """Every answer that routes of up to ``depth`` calls can lead to, each requested once. After a
    failed call the route continues from the answer before it, as it would live.

    Answers that differ multiply: with n members there are up to n + n^2 + ... + n^depth for each
    question, and few where members agree.
    """
    recorded: dict[MemberCall, Reply] = {}
    ahead = [MemberCall(member, question) for question in questions for member in members]
    for _ in range(depth):
        for call, reply in zip(ahead, answers.ask(ahead), strict=True):
            recorded[call] = reply
        continued = dict.fromkeys(
            (call.question, recorded[call].text)
            for call in ahead
            if recorded[call].text is not None
        )
        ahead = [
            call
            for question, text in continued
            for member in members
            if (call := MemberCall(member, question, text)) not in recorded
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
) -> Iterator[list[tuple[MemberCall, Reply]]]:
    """``record`` for ``batch`` questions at a time; yields one list for each question, so that
    progress can be shown and saved."""
    for start in range(0, len(questions), batch):
        part = questions[start : start + batch]
        rows: dict[str, list[tuple[MemberCall, Reply]]] = {question: [] for question in part}
        for call, reply in record(answers, part, members, depth):
            rows[call.question].append((call, reply))
        yield from rows.values()
