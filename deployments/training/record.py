"""`orchestrion record`: a query log from live members."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deployments.launch.backends import ServeBackends
from deployments.progress import bar
from deployments.training.der_setup import Setup
from envs.members.event_loop import EventLoopThread
from envs.members.recording import parts
from runtime.data.query_log import Ask, Reply, write
from runtime.data.questions import read_questions

if TYPE_CHECKING:
    pass
from deployments.training.der import _cluster


def record(setup: Setup, out: Path, depth: int) -> int:
    """Writes every answer that routes of up to ``depth`` calls lead to; returns their number."""
    training = setup.training
    questions = read_questions(Path(training.questions), training.limit)
    with _cluster(setup, live=True):
        members = setup.members(ServeBackends(setup.app), EventLoopThread("recording"))
        rows: list[tuple[Ask, Reply]] = []
        try:
            with bar("recording", len(questions)) as step:
                asked = [question.question for question in questions]
                for part in parts(members, asked, setup.der.members, depth):
                    rows += part
                    step.done()
        finally:
            members.close()
            # What was recorded before a fault is as good as ever: replay refuses the rest.
            write(out, rows, setup.conditions)
    return len(rows)
