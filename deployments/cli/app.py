"""The command line: its subcommands in the order in which ``--help`` lists them."""

from __future__ import annotations

import os
import sys

import typer

from deployments.cli.commands.evaluation import evaluate
from deployments.cli.commands.serving import ask, demo, fetch, serve
from deployments.cli.commands.tools import align, doctor, key, methods, tree
from deployments.cli.commands.training import record, training
from deployments.progress import console
from runtime.errors import OrchestrionError

app = typer.Typer(
    help="Plays several LLMs as one.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.command()(serve)
app.command()(ask)
app.command()(demo)
app.command("eval")(evaluate)
app.command()(methods)
app.command()(fetch)
app.command()(align)
app.command()(record)
app.command()(tree)
app.command()(key)
app.command()(doctor)
app.add_typer(training, name="train")


def main() -> None:
    """The entry point. A typed error is printed on one line, without a traceback."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        app()
    except OrchestrionError as fault:
        console.print(f"[red]error:[/red] {fault}", highlight=False, markup=True)
        sys.exit(1)
