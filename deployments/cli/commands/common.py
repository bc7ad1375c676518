"""Parameters that several commands take, and how a command fails."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from deployments.progress import console

ConfigFile = Annotated[Path, typer.Argument(help="A Serve config such as examples/quickstart.yaml")]
Port = Annotated[int | None, typer.Option(help="Port; the config's own when absent")]


def fail(message: str) -> NoReturn:
    """Prints the error on standard error and exits with status 1."""
    console.print(f"[red]error:[/red] {message}", highlight=False)
    raise typer.Exit(1)
