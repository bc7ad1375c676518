"""The command line: ``orchestrion serve | ask | demo | eval | train | record | methods | fetch |
align | tree | key | doctor``"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli.train import training
from deployments.credentials import VARIABLE, need_key
from deployments.progress import console
from runtime.errors import OrchestrionError

app = typer.Typer(
    help="Plays several LLMs as one.", no_args_is_help=True, pretty_exceptions_enable=False
)

ConfigFile = Annotated[Path, typer.Argument(help="A Serve config such as examples/quickstart.yaml")]
Port = Annotated[int | None, typer.Option(help="Port; the config's own when absent")]


@app.command()
def serve(
    config: ConfigFile,
    port: Port = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port for Prometheus; a free one when absent")
    ] = None,
    print_config: Annotated[bool, typer.Option(help="Print what was resolved, and stop")] = False,
) -> None:
    """Serve a configuration on this machine until interrupted."""
    from deployments.config.serve_file import load
    from deployments.launch.local_ray import scrape_url, serve_options, serving
    from deployments.launch.weights import fetch_weights

    document, settings = load(config)
    if print_config:
        typer.echo(settings.model_dump_json(indent=2))
        return
    own_host, own_port = serve_options(document)
    fetch_weights(settings)
    with serving(
        settings,
        host=host or own_host,
        port=port or own_port,
        metrics_port=metrics_port,
        logs=document.get("logging_config"),
    ) as base_url:
        console.print(f"[bold]serving[/bold] {', '.join(settings.ensembles)} at {base_url}")
        console.print(f"metrics at {scrape_url()}")
        console.print(
            'try: orchestrion ask "Explain in a few sentences why the sky is blue." --url '
            + base_url
        )
        _wait_for_interrupt()


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask")],
    model: Annotated[str, typer.Option(help="An ensemble or a member")] = "specfuse",
    url: Annotated[str, typer.Option(help="Base URL of the endpoint")] = "http://127.0.0.1:8000/v1",
    max_tokens: Annotated[int | None, typer.Option(help="Visible tokens at most")] = None,
    temperature: Annotated[float | None, typer.Option(help="The method's own when absent")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer")] = None,
    svg: Annotated[Path | None, typer.Option(help="Also write the answer as a picture")] = None,
    full_trace: Annotated[
        bool, typer.Option(help="Keep all that the method did, and tell the trace's id")
    ] = False,
) -> None:
    """Ask a running endpoint; the answer is coloured by who wrote what."""
    from openai import APIConnectionError, APIStatusError, AuthenticationError

    from deployments.cli.ask import ask as ask_endpoint
    from deployments.cli.ask import picture

    try:
        shown = ask_endpoint(
            url,
            model,
            question,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            full_trace=full_trace,
        )
        if full_trace:
            console.print(f"trace {shown.trace_id}", highlight=False)
        if svg is not None:
            svg.write_text(picture(shown, f"{model}: {question}"))
    except APIConnectionError:
        _fail(f"nothing answers at {url}; start it with: make serve")
    except AuthenticationError:
        _fail(f"{url} wants a key; put it into {VARIABLE}")
    except APIStatusError as fault:
        body = fault.body if isinstance(fault.body, dict) else {}
        _fail(str(body.get("message", fault)))


@app.command()
def demo(
    config: Annotated[Path, typer.Argument(help="A Serve config")] = Path(
        "examples/quickstart.yaml"
    ),
    model: Annotated[str, typer.Option(help="An ensemble")] = "specfuse",
    question: Annotated[str, typer.Option(help="What to ask")] = (
        "Explain in a few sentences why the sky is blue."
    ),
    max_tokens: Annotated[int, typer.Option(help="Visible tokens at most")] = 96,
    port: Port = None,
) -> None:
    """Fetch, serve, ask one streamed question, show who wrote what, and stop."""
    from deployments.cli.ask import ask as ask_endpoint
    from deployments.config.serve_file import load
    from deployments.launch.local_ray import serve_options, serving
    from deployments.launch.weights import fetch_weights

    document, settings = load(config)
    need_key(settings.gateway.access)
    host, own_port = serve_options(document)
    fetch_weights(settings)
    with serving(settings, host=host, port=port or own_port) as base_url:
        console.print(f"[bold]{model}[/bold] · {question}\n")
        ask_endpoint(base_url, model, question, max_tokens=max_tokens, seed=1)


@app.command("eval")
def evaluate(
    config: ConfigFile,
    questions: Annotated[Path | None, typer.Option(help="JSONL: question, answer")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many")] = None,
    models: Annotated[str | None, typer.Option(help="Names, separated by commas")] = None,
    url: Annotated[str | None, typer.Option(help="A running endpoint; else one is started")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: one JSON object")] = False,
    picture: Annotated[Path | None, typer.Option(help="An SVG of a sweep's curves")] = None,
    port: Port = None,
) -> None:
    """Ensembles and each member alone on the same questions: accuracy, calls, cost, time."""
    from rich.console import Console

    from deployments.config.serve_file import load
    from deployments.evaluation import runner as evaluation
    from deployments.evaluation.route_baselines import route_rows
    from deployments.launch.local_ray import serve_options, serving
    from deployments.launch.weights import fetch_weights
    from runtime.config.evaluation import EvaluationConfig
    from runtime.data.questions import read_questions

    document, settings = load(config)
    wish = settings.evaluation
    if wish is None and questions is None:
        _fail(f"{config} has no evaluation section; name a file with --questions")
    wish = wish or EvaluationConfig(questions=str(questions))
    if models:
        wish = wish.model_copy(update={"models": tuple(models.split(","))})
    asked = read_questions(questions or Path(wish.questions), limit or wish.limit)

    async def all_rows(base_url: str) -> list[evaluation.Row]:
        rows = await evaluation.compare(base_url, asked, wish)
        return rows + await route_rows(base_url, settings, asked, wish, rows)

    if url is not None:
        rows = asyncio.run(all_rows(url))
    else:
        need_key(settings.gateway.access)
        host, own_port = serve_options(document)
        fetch_weights(settings)
        with serving(settings, host=host, port=port or own_port) as base_url:
            rows = asyncio.run(all_rows(base_url))
    shown = Console(width=140)
    shown.print(evaluation.table(rows))
    more: dict[str, Any] = {}
    if wish.sweep is not None:
        from deployments.evaluation import threshold_sweep

        curves = threshold_sweep.curves(rows, wish)
        more["curves"] = threshold_sweep.told(curves, wish)
        shown.print(threshold_sweep.table(curves, wish))
        if picture is not None:
            threshold_sweep.draw(curves, picture)
    if as_json:
        typer.echo(evaluation.as_json(rows, **more))


@app.command()
def methods(
    write: Annotated[Path | None, typer.Option(help="Write docs/methods.md")] = None,
    check: Annotated[Path | None, typer.Option(help="Fail when this file is stale")] = None,
) -> None:
    """The table of methods, from the methods themselves."""
    from deployments.cli.methods_docs import markdown, plugins

    text = markdown()
    if check is not None:
        if not check.exists() or check.read_text() != text:
            _fail(f"{check} is stale; run: make docs")
    elif write is not None:
        write.write_text(text)
    else:
        typer.echo(text + plugins())


@app.command()
def fetch(config: ConfigFile) -> None:
    """Download and convert the weights that a configuration names."""
    from deployments.config.serve_file import load
    from deployments.launch.weights import fetch_weights

    fetch_weights(load(config)[1])


@app.command()
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


app.add_typer(training, name="train")


@app.command()
def record(
    config: Annotated[Path, typer.Argument(help="As examples/train_der_zoo.yaml")],
    out: Annotated[Path, typer.Option(help="The log, a Parquet file")],
    depth: Annotated[int, typer.Option(help="Calls of the longest route")] = 2,
) -> None:
    """Every answer that routes can lead to, once, for training without members."""
    from deployments.training.der_setup import load_setup
    from deployments.training.record import record as record_log

    console.print(f"{record_log(load_setup(config), out, depth)} answers in {out}")


@app.command()
def tree(
    trace_id: Annotated[str, typer.Argument(help="As orchestrion ask --full-trace tells it")],
    url: Annotated[str, typer.Option(help="Base URL of the endpoint")] = "http://127.0.0.1:8000/v1",
    depth: Annotated[int | None, typer.Option(help="Only so many steps deep")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write it as a picture instead")] = None,
    html: Annotated[Path | None, typer.Option(help="Write it as a page that folds")] = None,
) -> None:
    """The tree of steps that a request searched (le-mcts)."""
    from rich.console import Console

    from deployments.cli import tree as trees

    found, summary = trees.fetch(url, trace_id)
    title = f"{summary.get('method', 'tree')} · {trace_id}"
    end = summary["full"]["state"].get("end")
    if svg is not None:
        svg.write_text(trees.svg(found, title, depth, end))
    if html is not None:
        html.write_text(trees.page(found, title, end))
    if svg is None and html is None:
        Console(width=140).print(trees.lines(found, depth, end))


@app.command()
def key(name: Annotated[str, typer.Argument(help="Whose it is")]) -> None:
    """A new API key, and its entry for the file of keys (docs/security.md)."""
    from deployments.http.auth.keys import entry, new_key

    made = new_key()
    typer.echo(f"# the key, told only here: {made}\n{entry(name, made)}")


@app.command()
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


def _wait_for_interrupt() -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def _fail(message: str) -> None:
    console.print(f"[red]error:[/red] {message}", highlight=False)
    raise typer.Exit(1)


def main() -> None:
    """The entry point; a fault we know is one line, not a traceback."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        app()
    except OrchestrionError as fault:
        console.print(f"[red]error:[/red] {fault}", highlight=False, markup=True)
        sys.exit(1)
