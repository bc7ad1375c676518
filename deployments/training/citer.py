"""``orchestrion train citer``: starts members, collects preferences and trains in rounds, tunes,
exports the router."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.launch.training_cluster import members_up
from deployments.progress import bar, console
from deployments.training.citer_setup import PairSetup
from runtime.artifacts.mlp import Layers
from runtime.artifacts.token_router import Router
from runtime.errors import ConfigError, EngineFault

if TYPE_CHECKING:
    from envs.token_routing.env import TokenWorld
    from envs.token_routing.preference_training import TrainedRouter


def train(setup: PairSetup, fresh: bool) -> Path:
    """Trains and exports the router; returns its folder. Reuses preferences that were collected
    under the same conditions and continues a tuning, unless ``fresh``. Raises ``ConfigError``,
    ``EngineFault``."""
    training = setup.training
    started = time.monotonic()
    ppo = training.ppo
    # Ray Data, which reads the preferences, uses two CPUs; a collector uses a fifth of one.
    cpus = 2 + 0.2 * training.collectors + (0 if ppo is None else ppo.runners)
    if ppo is not None and not fresh:
        _check_folder(setup)
    named = (training.out, training.first, training.tuned, training.co_llm, training.run)
    written = [name for name in (*named, setup.citer.router) if name is not None]
    with members_up(setup.needed, cpus, written), contextlib.closing(setup):
        world = setup({})
        routers, table = _rounds(setup, world, fresh)
        learnt, _ = routers[-1]
        if training.co_llm is not None:
            _export(setup, world, *_co_llm(setup, table), Path(training.co_llm), "co-llm")
        if training.first is not None:
            _export(setup, world, routers[0][0].layers, routers[0][1], Path(training.first))
        if training.tuned is not None and ppo is not None:
            layers, details = _tuned(setup, learnt, fresh)
            _export(setup, world, layers, details, Path(training.tuned))
    out = Path(training.out or setup.citer.router)
    console.print(
        f"{training.rounds} rounds in {time.monotonic() - started:.0f} s; router in {out}",
        highlight=False,
    )
    return out


def _rounds(
    setup: PairSetup, world: TokenWorld, fresh: bool
) -> tuple[list[tuple[TrainedRouter, dict[str, Any]]], Any]:
    """Collects and trains in rounds, and exports the router of each. Returns the result of each
    round and the preferences of the first."""
    from envs.token_routing.collectors import collect_all
    from envs.token_routing.preference_training import load_trained, save_trained, train_preferences
    from envs.token_routing.preferences import Round, counts, left_out, read, write

    training = setup.training
    found: list[tuple[TrainedRouter, dict[str, Any]]] = []
    tables: list[Any] = []
    router: Router | None = None
    for number in range(1, training.rounds + 1):
        judged_by = None if router is None else router.version
        threshold = setup.citer.threshold
        about = {**setup.provenance, "round": number, "router": judged_by, "threshold": threshold}
        file = training.folder / f"preferences_{number}.parquet"
        table = None if fresh else read(file, about)
        complete = True
        if table is None:
            good = training.reward.good
            round_ = Round(number, router, threshold, training.max_tokens, good)
            with bar(f"collecting, round {number}", len(world.tasks)) as step:
                table = collect_all(
                    setup, world.tasks, round_, training.collectors, about, step.done
                )
            missing = left_out(table, world.tasks)
            complete = not missing
            if len(missing) == len(world.tasks):
                raise EngineFault(
                    "no question could be scored by both members; the log has the errors"
                )
            if missing:
                console.print(
                    f"[yellow]note:[/yellow] {len(missing)} questions at which a member failed are "
                    "left out; the next run collects them again",
                    highlight=False,
                )
            else:
                write(file, table)
        tables.append(table)
        cases = counts(table)
        # RLlib's training is not deterministic, so the result of a round is stored, unless the next
        # run will have more preferences.
        source = {"from": about, "how": training.preference.model_dump(mode="json")}
        net = training.folder / f"round_{number}.safetensors"
        learnt = load_trained(source, net) if complete and not fresh else None
        if learnt is None:
            learnt = train_preferences(table, training.folder, training.preference)
            if complete:
                save_trained(learnt, source, net)
        console.print(
            f"round {number}: {len(table)} tokens (cases {cases['case_1']}, {cases['case_2']}, "
            f"{cases['case_3']}), {learnt.metrics['epochs']:.0f} epochs, "
            f"loss {learnt.metrics['loss']:.3f}, AUC {learnt.metrics['auc']:.3f}",
            highlight=False,
        )
        summary = {"round": number, "preferences": cases, **learnt.metrics}
        out = Path(training.out or setup.citer.router)
        router = _export(setup, world, learnt.layers, summary, out)
        found.append((learnt, summary))
    return found, tables[0]


def _co_llm(setup: PairSetup, table: Any) -> tuple[Layers, dict[str, Any]]:
    """Trains Co-LLM on the first round's tokens: its objective uses no preferences, so the rounds
    do not differ."""
    from envs.token_routing.co_llm import train_co_llm

    layers, loss = train_co_llm(table, setup.training.preference)
    console.print(f"Co-LLM: {loss:.4f} nats for a token", highlight=False)
    return layers, {"loss": loss}


def _tuned(setup: PairSetup, learnt: TrainedRouter, fresh: bool) -> tuple[Layers, dict[str, Any]]:
    """PPO in the environment, from the last round's router."""
    from envs.token_routing.rl_module import RouterModule
    from envs.token_routing.router_net import folded
    from envs.token_routing.spec import TOKENS
    from envs.training.trainer import Training, forget

    training = setup.training
    assert training.ppo is not None
    if fresh:
        forget(training.folder)
    about = {**setup.about, "start": hash_of(learnt.layers)}
    run = Training(training.ppo, setup, training.folder, about, training.checkpoint_every, TOKENS)
    with contextlib.closing(run):
        if run.done == 0:
            state = run.module.get_state()
            run.load(state | {k: v for k, v in learnt.state.items() if k.startswith("net.")})
        else:
            console.print(f"tuning goes on after iteration {run.done}")
        console.print(f"{'iteration':>9}{'steps':>9}{'reward':>9}{'accuracy':>10}{'large':>8}")
        run.run(
            lambda progress: console.print(
                f"{progress.iteration:>9}{progress.steps:>9}{progress.reward:>9.3f}"
                f"{progress.accuracy:>10.3f}{progress.cost:>8.3f}",
                highlight=False,
            )
        )
        module = run.module
        assert isinstance(module, RouterModule)
        last = run.curve[-1]
        result = {"iterations": run.done, "reward": last.reward, "accuracy": last.accuracy}
        return folded(module.net), {**result, "large_share": last.cost}


def hash_of(layers: Layers) -> str:
    return Router(layers, "", "").version


def _check_folder(setup: PairSetup) -> None:
    """Raises ``ConfigError`` if the folder has a tuning with other settings, before collecting."""
    file = setup.training.folder / "settings.json"
    if not file.exists():
        return
    settings = json.loads(file.read_text())
    settings.pop("start", None)
    if settings != json.loads(json.dumps(setup.about)):
        raise ConfigError(
            f"{setup.training.folder} holds a run with other settings; name another folder under "
            "run:, or start over with --fresh"
        )


def _export(
    setup: PairSetup,
    world: TokenWorld,
    layers: Layers,
    details: Mapping[str, Any],
    folder: Path,
    method: str = "citer",
) -> Router:
    about = {"training": setup.fingerprint, **details}
    members: Any = world.members
    router = Router(layers, members.reads, method, about)
    router.save(folder)
    return router
