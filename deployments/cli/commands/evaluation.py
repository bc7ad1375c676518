"""``orchestrion eval``"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli.commands.common import ConfigFile, Port, fail
from deployments.credentials import need_key


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
    plan = settings.evaluation
    if plan is None and questions is None:
        fail(f"{config} has no evaluation section; name a file with --questions")
    plan = plan or EvaluationConfig(questions=str(questions))
    if models:
        plan = plan.model_copy(update={"models": tuple(models.split(","))})
    selected = read_questions(questions or Path(plan.questions), limit or plan.limit)

    async def all_rows(base_url: str) -> list[evaluation.Row]:
        rows = await evaluation.compare(base_url, selected, plan)
        return rows + await route_rows(base_url, settings, selected, plan, rows)

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
    if plan.sweep is not None:
        from deployments.evaluation import threshold_sweep

        curves = threshold_sweep.curves(rows, plan)
        more["curves"] = threshold_sweep.summary(curves, plan)
        shown.print(threshold_sweep.table(curves, plan))
        if picture is not None:
            threshold_sweep.draw(curves, picture)
    if as_json:
        typer.echo(evaluation.as_json(rows, **more))
