"""``orchestrion methods | align | tree | key | doctor``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.commands.common import fail


def methods(
    write: Annotated[Path | None, typer.Option(help="Write docs/methods.md")] = None,
    check: Annotated[Path | None, typer.Option(help="Fail when this file is stale")] = None,
) -> None:
    """The table of methods, from the methods themselves."""
    from deployments.cli.methods_docs import markdown, plugins

    text = markdown()
    if check is not None:
        if not check.exists() or check.read_text() != text:
            fail(f"{check} is stale; run: make docs")
    elif write is not None:
        write.write_text(text)
    else:
        typer.echo(text + plugins())


def align(
    first: Annotated[str, typer.Argument(metavar="A", help="Weights, or a member of --config")],
    second: Annotated[str, typer.Argument(metavar="B", help="Weights, or a member of --config")],
    config: Annotated[Path | None, typer.Option(help="A Serve config with members")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """How far two vocabularies agree; prepares what token-level methods need of them."""
    from rich.console import Console

    from deployments.cli import align as alignment
    from deployments.config.serve_file import load

    settings = load(config)[1] if config is not None else None
    report = alignment.compare(first, second, settings)
    if as_json:
        typer.echo(alignment.as_json(report))
    else:
        Console(width=120).print(alignment.table(report))


def tree(
    trace_id: Annotated[str, typer.Argument(help="As orchestrion ask --full-trace prints it")],
    url: Annotated[str, typer.Option(help="Base URL of the endpoint")] = "http://127.0.0.1:8000/v1",
    depth: Annotated[int | None, typer.Option(help="Only so many steps deep")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write it as a picture instead")] = None,
    html: Annotated[Path | None, typer.Option(help="Write it as a page that folds")] = None,
) -> None:
    """The tree of steps that a request searched (le-mcts)."""
    from rich.console import Console

    from deployments.cli import tree as trees

    steps, summary = trees.fetch(url, trace_id)
    title = f"{summary.get('method', 'tree')} · {trace_id}"
    end = summary["full"]["state"].get("end")
    if svg is not None:
        svg.write_text(trees.svg(steps, title, depth, end))
    if html is not None:
        html.write_text(trees.page(steps, title, end))
    if svg is None and html is None:
        Console(width=140).print(trees.lines(steps, depth, end))


def key(name: Annotated[str, typer.Argument(help="Whose it is")]) -> None:
    """A new API key, and its entry for the file of keys (docs/security.md)."""
    from deployments.http.auth.keys import entry, new_key

    made = new_key()
    typer.echo(f"# the key, shown only once: {made}\n{entry(name, made)}")


def doctor(
    config: Annotated[Path | None, typer.Argument(help="A Serve config to judge too")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """What is installed, what fits this machine, what is wrong and its remedy."""
    from deployments.doctor import examine, examine_config, probe, report

    installed, machine = probe.installed(), probe.machine()
    findings = examine(installed, machine)
    if config is not None:
        findings += examine_config(config, installed, machine)
    typer.echo(report.as_json(findings) if as_json else report.as_lines(findings))
    if not report.is_well(findings):
        raise typer.Exit(1)
