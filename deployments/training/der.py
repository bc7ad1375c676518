"""``orchestrion train der``: starts members, trains with PPO, exports the agent."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.config.app_config import AppConfig
from deployments.launch.training_cluster import members_up
from deployments.progress import console
from deployments.training.der_setup import Setup
from deployments.training.plots import draw
from policies.cascade.sequential.agent import Agent
from runtime.data.query_log import Replay

if TYPE_CHECKING:
    from envs.dynamic_ensemble.env import World
    from envs.training.trainer import IterationResult, Training

HEADER = f"{'iteration':>9}{'steps':>9}{'reward':>9}{'accuracy':>10}{'cost':>11}{'calls':>7}"


def train(setup: Setup, fresh: bool) -> Path:
    """Trains and exports the agent; returns its folder. Continues from the run's last checkpoint
    unless ``fresh``. Raises ``ConfigError``, ``EngineFault``."""
    training = setup.training
    folder = training.folder
    started = time.monotonic()
    with cluster_for(setup):
        # RLlib takes seconds to import; errors of the setup come before.
        from envs.dynamic_ensemble.one_shot import train_one_shot
        from envs.dynamic_ensemble.spec import DER
        from envs.dynamic_ensemble.terminator import train_terminator
        from envs.dynamic_ensemble.warm_start import clone
        from envs.training.trainer import Training, forget

        with contextlib.closing(setup):
            world = setup({})  # a wrong configuration fails before the old run is deleted
            if fresh:
                forget(folder)
            run = Training(training.ppo, setup, folder, setup.about, training.checkpoint_every, DER)
            with contextlib.closing(run):
                warm = training.warm_start
                if warm is not None and run.done == 0:
                    log = Replay(Path(warm.log), setup.conditions)
                    layers, same = clone(world, log, folder, training.ppo, warm.epochs)
                    run.start_from(layers)
                    cloned = f"cloned: {same:.1%} of the best routes' choices"
                    console.print(cloned, highlight=False)
                if run.done:
                    console.print(f"goes on after iteration {run.done}")
                console.print(HEADER, highlight=False)
                run.run(_log)
                agent = _agent(setup, run, world)
                if training.terminator:
                    terminator, right = train_terminator(world, training.ppo.seed)
                    console.print(f"terminator: {right}", highlight=False)
                    about = {**agent.about, "terminator": right}
                    agent = dataclasses.replace(agent, terminator=terminator, about=about)
                if training.one_shot is not None:
                    layers = train_one_shot(world, training.ppo.seed)
                    one_call: dict[str, Any] = {"t_max": 1, "terminator": (), "stops": True}
                    router = dataclasses.replace(agent, layers=layers, **one_call)
                    router.save(Path(training.one_shot))
    out = Path(training.out or setup.der.agent)
    agent.save(out)
    draw(run.curve, folder / "curve.svg")
    console.print(
        f"{run.done} iterations in {time.monotonic() - started:.0f} s; agent in {out}, "
        f"curve in {folder / 'curve.svg'}, events in {folder / 'tensorboard'}",
        highlight=False,
    )
    return out


def _agent(setup: Setup, run: Training, world: World) -> Agent:
    """The trained policy in the form in which it is served."""
    from envs.dynamic_ensemble.export import exported

    last = {"reward": run.curve[-1].reward, "accuracy": run.curve[-1].accuracy}
    about = {"training": setup.fingerprint, "iterations": run.done, "last": last}
    encoder, prompts = setup.der.encoder, setup.der.transfers()
    return exported(run.module, world, encoder, setup.reads, prompts, about)


def _log(progress: IterationResult) -> None:
    console.print(
        f"{progress.iteration:>9}{progress.steps:>9}{progress.reward:>9.3f}{progress.accuracy:>10.3f}"
        f"{progress.cost:>11.3g}{progress.calls:>7.2f}",
        highlight=False,
    )


def cluster_for(setup: Setup, live: bool | None = None) -> contextlib.AbstractContextManager[None]:
    """Ray, with the members if answers are live: by default as configured."""
    live = setup.live if live is None else live
    training = setup.training
    # Each of RLlib's runners uses one CPU, and Ray Data, which reads the routes to clone, two.
    cpus = training.ppo.runners + 2 * (training.warm_start is not None)
    named = (training.out or setup.der.agent, training.one_shot, training.run)
    written = [name for name in named if name is not None]
    return members_up(_needed(setup) if live else None, cpus, written)


def _needed(setup: Setup) -> AppConfig:
    """The application with the models of the training only."""
    app, der = setup.app, setup.der
    own = app.own_encoder(der)
    update: dict[str, Any] = {
        "members": {name: app.members[name] for name in der.members},
        "ensembles": {},
        "encoders": {} if own is None else {own: app.encoders[own]},
        "reward_models": {
            name: judge
            for name, judge in app.reward_models.items()
            if name == getattr(setup.training.quality, "reward", None)
        },
    }
    return app.model_copy(update=update)
