"""Progress output, on standard error: standard output is for results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(stderr=True, log_path=False)


@contextmanager
def bar(title: str, total: int) -> Iterator[_Step]:
    """A progress bar on a terminal; one line at start and end elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task(title, total=total)
        yield _Step(progress, task)


class _Step:
    def __init__(self, progress: Progress, task) -> None:  # type: ignore[no-untyped-def]
        self._progress, self._task = progress, task

    def done(self) -> None:
        self._progress.advance(self._task)
