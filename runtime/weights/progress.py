"""Progress output while weights are fetched: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Step(Protocol):
    """Called with the name of the current step; each call advances the bar by one."""

    def __call__(self, what: str) -> None: ...


def on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def say(line: str) -> None:
    """One plain line on stderr."""
    if sys.stderr is not None:
        print(f"orchestrion: {line}", file=sys.stderr, flush=True)


@contextmanager
def steps(title: str, total: int) -> Iterator[Step]:
    """A bar of ``total`` steps, or one plain line when stderr is not a terminal."""
    if not on_terminal():
        say(title)
        yield lambda what: None
        return
    bar = Progress(
        TextColumn("{task.fields[title]}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=total, title=title)
        begun = False

        def step(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, advance=1 if begun else 0)
            begun = True

        yield step
        bar.update(task, description="done", completed=total)
