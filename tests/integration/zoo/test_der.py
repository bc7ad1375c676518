"""DER on the zoo, a short training: it beats the random route, on countries not seen before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.launch.backends import InProcessBackends
from deployments.training.der_setup import Setup, load_setup
from envs.dynamic_ensemble.env import MASK, OBSERVATION, World
from envs.dynamic_ensemble.mdp import State
from runtime.data.questions import read_questions
from tests.support.paths import ROOT
from tests.support.ray_cluster import small_ray

TRAINED_ON, TESTED_ON = 80, 60
SEEDS = (1, 2, 3)
MARGIN = 1.5
"""Of reward: what a good end pays more than a bad one is 2 gamma = 4."""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:.*already in registry"),
]


WORLDS: dict[str, World] = {}


def the_world(config: Any) -> World:
    """RLlib pickles what makes a world, and a world holds locks."""
    return WORLDS["here"]


@pytest.fixture(scope="module")
def setup() -> Setup:
    whole = load_setup(ROOT / "examples" / "train_der_zoo.yaml")
    training = whole.training.model_copy(update={"limit": TRAINED_ON})
    return Setup(training, whole.app)


@pytest.fixture(scope="module")
def world(setup: Setup) -> Iterator[World]:
    made = setup.make(InProcessBackends(setup.app))
    WORLDS["here"] = made
    with small_ray():
        yield made
    made.close()


def paid(world: World, choose: Any) -> tuple[float, float]:
    """Mean return and accuracy over the world's questions."""
    states = [State(task.question) for task in world.tasks]
    total, going = np.zeros(len(states)), list(range(len(states)))
    while going:
        here = [states[i] for i in going]
        actions = choose(world.observe(here))
        steps = world.act(here, [world.tasks[i] for i in going], actions)
        for i, step in zip(going, steps, strict=True):
            states[i] = step.state
            total[i] += step.reward
        going = [i for i, step in zip(going, steps, strict=True) if not step.terminated]
    good = [state.quality >= world.reward.threshold for state in states]
    return float(total.mean()), float(np.mean(good))


def test_a_short_training_beats_the_random_route(
    setup: Setup, world: World, tmp_path: Path
) -> None:
    from envs.dynamic_ensemble.export import exported
    from envs.dynamic_ensemble.spec import DER
    from envs.training.trainer import Training

    unseen = read_questions(ROOT / "examples/zoo/questions/der_test.jsonl", TESTED_ON)
    test = replace(world, tasks=unseen)
    draw = random.Random(0)

    def at_random(seen: dict[str, np.ndarray]) -> list[int]:
        return [draw.choice(np.flatnonzero(row).tolist()) for row in seen[MASK]]

    chance = [paid(test, at_random) for _ in range(3)]
    result = []
    for seed in SEEDS:
        settings = setup.training.ppo.model_copy(update={"iterations": 30, "seed": seed})
        run = Training(
            settings, the_world, tmp_path / str(seed), {"seed": seed}, every=100, spec=DER
        )
        try:
            run.run(lambda _: None)
            agent = exported(run.module, world, "reader", {}, setup.der.transfers(), {})
        finally:
            run.close()

        def greedy(seen: dict[str, np.ndarray], agent: Any = agent) -> list[int]:
            logits = agent.logits(seen[OBSERVATION])
            return list(np.where(seen[MASK], logits, -np.inf).argmax(axis=1).tolist())

        result.append(paid(test, greedy))
    print("random", chance, "trained", result)
    best_of_chance = max(reward for reward, _ in chance)
    for reward, _ in result:
        assert reward >= best_of_chance + MARGIN, (result, chance)
