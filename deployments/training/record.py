"""`orchestrion record`: a query log from live members."""

from __future__ import annotations

from pathlib import Path

from deployments.launch.backends import ServeBackends
from deployments.progress import bar
from deployments.training.der import cluster_for
from deployments.training.der_setup import Setup
from envs.members.event_loop import EventLoopThread
from envs.members.recording import parts
from runtime.data.query_log import MemberCall, Reply, write
from runtime.data.questions import read_questions


def record(setup: Setup, out: Path, depth: int) -> int:
    """Records the members' answers on all routes of up to ``depth`` calls in the Parquet file
    ``out``; returns their number."""
    training = setup.training
    questions = read_questions(Path(training.questions), training.limit)
    with cluster_for(setup, live=True):
        members = setup.members(ServeBackends(setup.app), EventLoopThread("recording"))
        rows: list[tuple[MemberCall, Reply]] = []
        try:
            with bar("recording", len(questions)) as step:
                texts = [question.question for question in questions]
                for part in parts(members, texts, setup.der.members, depth):
                    rows += part
                    step.done()
        finally:
            members.close()
            # Answers recorded before an error are valid; a replay refuses the missing ones.
            write(out, rows, setup.conditions)
    return len(rows)
