"""``orchestrion serve | ask | demo | fetch``"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.commands.common import ConfigFile, Port, fail
from deployments.credentials import VARIABLE, need_key
from deployments.progress import console

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
"""examples/quickstart.yaml, as it is installed."""


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
    _stop_on_signals()
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


def ask(
    question: Annotated[str, typer.Argument(help="What to ask")],
    model: Annotated[str, typer.Option(help="An ensemble or a member")] = "specfuse",
    url: Annotated[str, typer.Option(help="Base URL of the endpoint")] = "http://127.0.0.1:8000/v1",
    max_tokens: Annotated[int | None, typer.Option(help="Visible tokens at most")] = None,
    temperature: Annotated[float | None, typer.Option(help="The method's own when absent")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer")] = None,
    svg: Annotated[Path | None, typer.Option(help="Also write the answer as a picture")] = None,
    full_trace: Annotated[
        bool, typer.Option(help="Keep all that the method did, and print the trace's id")
    ] = False,
) -> None:
    """Ask a running endpoint; the answer is coloured by who wrote what."""
    from openai import APIConnectionError, APIStatusError, AuthenticationError

    from deployments.cli.ask import ask as ask_endpoint
    from deployments.cli.ask import to_svg

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
            svg.write_text(to_svg(shown, f"{model}: {question}"))
    except APIConnectionError:
        fail(f"no server at {url}; start one with: make serve")
    except AuthenticationError:
        fail(f"{url} requires an API key; set {VARIABLE}")
    except APIStatusError as fault:
        body = fault.body if isinstance(fault.body, dict) else {}
        fail(str(body.get("message", fault)))


def demo(
    config: Annotated[
        Path, typer.Argument(help="A Serve config", show_default="quickstart.yaml")
    ] = QUICKSTART,
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
    _stop_on_signals()
    fetch_weights(settings)
    with serving(settings, host=host, port=port or own_port) as base_url:
        console.print(f"[bold]{model}[/bold] · {question}\n")
        ask_endpoint(base_url, model, question, max_tokens=max_tokens, seed=1)


def fetch(config: ConfigFile) -> None:
    """Download and convert the weights that a configuration names."""
    from deployments.config.serve_file import load
    from deployments.launch.weights import fetch_weights

    fetch_weights(load(config)[1])


def _stop_on_signals() -> None:
    """SIGINT and SIGTERM raise ``KeyboardInterrupt``, which stops what has been started; SIGINT
    also where the parent ignores it, as shells do for background jobs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _wait_for_interrupt() -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
