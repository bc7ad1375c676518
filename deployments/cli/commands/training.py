"""``orchestrion train der | citer`` and ``orchestrion record``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.progress import console

training = typer.Typer(help="Train what decides who writes.", no_args_is_help=True)


@training.command("der")
def train_der(
    config: Annotated[Path, typer.Argument(help="As examples/train_der_zoo.yaml")],
    iterations: Annotated[int | None, typer.Option(help="Instead of the config's own")] = None,
    fresh: Annotated[bool, typer.Option(help="Begin anew, not from the last checkpoint")] = False,
) -> None:
    """DER: PPO learns which member to call next, and the agent is exported."""
    from deployments.training import der
    from deployments.training.der_setup import load_setup

    der.train(load_setup(config, iterations), fresh)


@training.command("citer")
def train_citer(
    config: Annotated[Path, typer.Argument(help="As examples/train_citer_zoo.yaml")],
    fresh: Annotated[bool, typer.Option(help="Collect and tune anew")] = False,
) -> None:
    """CITER: a router learns which tokens a large member had better write, and is exported."""
    from deployments.training import citer
    from deployments.training.citer_setup import load_pair_setup

    citer.train(load_pair_setup(config), fresh)


def record(
    config: Annotated[Path, typer.Argument(help="As examples/train_der_zoo.yaml")],
    out: Annotated[Path, typer.Option(help="The log, a Parquet file")],
    depth: Annotated[int, typer.Option(help="Calls of the longest route")] = 2,
) -> None:
    """Every answer that routes can lead to, once, for training without members."""
    from deployments.training.der_setup import load_setup
    from deployments.training.record import record as record_log

    console.print(f"{record_log(load_setup(config), out, depth)} answers in {out}")
