"""How fast DER's environment steps: live, and from a log.

    python -m benchmarks.envs --json

The zoo's members behind Serve handles (examples/train_der_zoo.yaml), asked for every step anew,
and the same questions replayed from a log that is recorded first. Actions are drawn at random; a
step is one sub-environment's. The last line is one JSON object; only ratios of one run mean
anything.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.quick import add_quick
from deployments.launch.backends import InProcessBackends, ServeBackends
from deployments.launch.local_ray import serving
from deployments.launch.weights import fetch_weights
from deployments.progress import bar
from deployments.training.der_setup import Setup, load_setup
from envs.dynamic_ensemble.config import LiveAnswers, LoggedAnswers
from envs.dynamic_ensemble.env import DynamicEnsembleVectorEnv, World
from envs.members.event_loop import EventLoopThread
from envs.members.recording import parts
from runtime.data.query_log import MemberCall, Reply, write

PORT = 8769
CONFIG = Path("examples/train_der_zoo.yaml")
WIDTHS = (1, 8, 32)
FIGURES = (
    *(f"live_{width}" for width in WIDTHS),
    *(f"replay_{width}" for width in WIDTHS),
    "answers_recorded",
    "live_32_over_1",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--depth", type=int, default=3, help="calls of an episode at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    add_quick(parser, questions=3, depth=2, seconds=1.0)
    args = parser.parse_args()
    figures = measure(args.questions, args.depth, args.seconds)
    if not args.json:
        for name, value in figures.items():
            print(f"{name:16} {value}")
    print(json.dumps(figures))


def measure(questions: int, depth: int, seconds: float) -> dict[str, float]:
    setup = load_setup(CONFIG)
    training = setup.training
    reward = training.reward.model_copy(update={"t_max": depth})
    small = training.model_copy(update={"limit": questions, "reward": reward})
    app = setup.app.model_copy(update={"ensembles": {}})
    figures: dict[str, float] = {}
    fetch_weights(app)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.parquet"
        with serving(app, port=PORT):
            live = small.model_copy(update={"answers": LiveAnswers(remember=False)})
            world = Setup(live, setup.app).make(ServeBackends(setup.app))
            for width in WIDTHS:
                figures[f"live_{width}"] = rate(world, width, seconds)
            members = setup.members(ServeBackends(setup.app), EventLoopThread("recording"))
            rows: list[tuple[MemberCall, Reply]] = []
            with bar("recording", len(world.tasks)) as step:
                texts = [task.question for task in world.tasks]
                for part in parts(members, texts, setup.der.members, depth):
                    rows += part
                    step.done()
            members.close()
            world.close()
        write(log, rows, setup.conditions)
        logged = small.model_copy(update={"answers": LoggedAnswers(path=str(log))})
        replay = Setup(logged, setup.app)
        world = replay.make(InProcessBackends(setup.app))
        for width in WIDTHS:
            figures[f"replay_{width}"] = rate(world, width, seconds)
        world.close()
        figures["answers_recorded"] = len(rows)
    figures["live_32_over_1"] = round(figures["live_32"] / figures["live_1"], 2)
    return figures


def rate(world: World, width: int, seconds: float) -> float:
    """Steps per second of ``width`` sub-environments together; resets count for nothing."""
    env = DynamicEnsembleVectorEnv({"world": world, "num_envs": width})
    env.reset(seed=1)
    draw = np.random.default_rng(1)
    ended = np.zeros(width, dtype=bool)
    steps, warm = 0, True
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        actions = draw.integers(len(world.members), size=width)
        going = int((~ended).sum())
        _, _, ended, _, _ = env.step(actions)
        if warm:  # the first step opens connections and fills caches
            started, warm = time.perf_counter(), False
        else:
            steps += going
    return round(steps / (time.perf_counter() - started), 1)


if __name__ == "__main__":
    main()
