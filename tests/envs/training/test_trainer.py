"""A training run: it goes on exactly where it was stopped, and what is trained beside the agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.dynamic_ensemble.config import TrainingConfig
from envs.dynamic_ensemble.env import OBSERVATION, World
from envs.dynamic_ensemble.mdp import RewardConfig, State
from envs.dynamic_ensemble.one_shot import train_one_shot
from envs.dynamic_ensemble.spec import DER
from envs.dynamic_ensemble.terminator import train_terminator
from envs.dynamic_ensemble.warm_start import ROUTES, clone
from envs.members.recording import record
from envs.training.config import PPOSettings
from envs.training.trainer import CHECKPOINTS, CURVE, IterationResult, Training
from policies.cascade.sequential.agent import Agent
from runtime.data.query_log import MemberCall, Replay, write
from runtime.errors import ConfigError
from tests.support.models.table_members import KNOWN, TASKS, Table, world
from tests.support.ray_cluster import small_ray

SETTINGS = PPOSettings(iterations=4, batch=64, minibatch=32, environments=4, hidden=(16,), seed=5)
QUICK = SETTINGS.model_copy(update={"rate": 1e-2})
ABOUT = {"what": "a test"}

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.*already in registry"),
    # Ray Data warns of its own defaults.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with small_ray():
        yield


def a_world(config: Any) -> World:
    return world()


def run(
    folder: Path, iterations: int, about: Any = ABOUT
) -> tuple[list[IterationResult], dict[str, Any]]:
    """The curve and the weights after so many iterations, in a process that has just begun."""
    settings = SETTINGS.model_copy(update={"iterations": iterations})
    training = Training(settings, a_world, folder, about, every=2, spec=DER)
    try:
        training.run(lambda result: None)
        return training.curve, training.module.get_state()
    finally:
        training.close()


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, wanted = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    # A third iteration without a checkpoint is lost when the process dies, and done again.
    with (tmp_path / "parts" / CURVE).open("a") as file:
        file.write(json.dumps({"iteration": 3}) + "\n")
    curve, weights = run(tmp_path / "parts", 4)
    assert [(result.iteration, result.steps) for result in curve] == [
        (result.iteration, result.steps) for result in whole
    ]
    assert curve == whole and len({result.reward for result in whole}) > 1
    for name, value in wanted.items():
        assert np.array_equal(value, weights[name]), name
    assert sorted(p.name for p in (tmp_path / "parts" / CHECKPOINTS).iterdir()) == [
        "000002",
        "000004",
    ]
    events = list((tmp_path / "parts" / "tensorboard").glob("events*"))
    assert len(events) == 2 and all(file.stat().st_size for file in events)
    lines = (tmp_path / "parts" / CURVE).read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3, 4]


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 1)
    with pytest.raises(ConfigError, match="other settings"):
        run(tmp_path, 2, about={"what": "something else"})


def test_the_one_shot_router_asks_who_knows() -> None:
    here = world()
    layers = train_one_shot(here, seed=0)
    router = Agent(here.members, layers, 1, "shape", {})
    seen = here.observe([State(task.question) for task in TASKS])
    chosen = router.logits(seen[OBSERVATION]).argmax(axis=1)
    assert [here.members[i] for i in chosen] == ["sums", "animals"]


def test_the_terminator_knows_a_bad_answer() -> None:
    here = world(reward=RewardConfig(t_max=3))
    layers, result = train_terminator(here, seed=0)
    agent = Agent(here.members, (), 3, "shape", {}, layers)
    states = [
        State(TASKS[0].question, "4", 1.0, 1),
        State(TASKS[0].question, "no idea", 0.0, 1),
    ]
    good, bad = agent.good_enough(here.features.encode(states))
    assert good > 0.9 and bad < 0.1 and result["right"] == 1.0


def a_log(tmp_path: Path) -> Replay:
    rows = record(Table(), [task.question for task in TASKS], tuple(KNOWN), depth=2)
    write(tmp_path / "log.parquet", rows, {})
    return Replay(tmp_path / "log.parquet")


@pytest.mark.slow
def test_the_best_routes_are_cloned(tmp_path: Path) -> None:
    here = world()
    layers, same = clone(here, a_log(tmp_path), tmp_path, QUICK, epochs=4000)
    assert same == 1.0 and (tmp_path / ROUTES).exists()
    agent = Agent(here.members, layers, 5, "shape", {})
    first = here.features.encode([State(task.question) for task in TASKS])
    assert agent.logits(first)[:, :3].argmax(axis=1).tolist() == [0, 1]


@pytest.mark.slow
def test_a_run_starts_from_a_clone(tmp_path: Path) -> None:
    here = world()
    layers, _ = clone(here, a_log(tmp_path), tmp_path, QUICK, epochs=200)
    training = Training(SETTINGS, a_world, tmp_path / "run", ABOUT, every=2, spec=DER)
    try:
        training.start_from(layers)
        state = training.module.get_state()
    finally:
        training.close()
    assert np.array_equal(state["actor.0.weight"], layers[0][0])
    assert np.array_equal(state["actor.2.bias"], layers[1][1])


def test_a_threshold_that_ends_episodes_needs_a_terminator() -> None:
    result: dict[str, Any] = {"serve": "s", "ensemble": "e", "questions": "q", "run": "r"}
    with pytest.raises(ValueError, match="terminator: true"):
        TrainingConfig.model_validate(result | {"reward": {"ends": "threshold"}})
    with_one = result | {"reward": {"ends": "threshold"}, "terminator": True}
    assert TrainingConfig.model_validate(with_one).reward.ends == "threshold"


def test_rounds_that_would_cut_every_episode_are_refused() -> None:
    result: dict[str, Any] = {"serve": "s", "ensemble": "e", "questions": "q", "run": "r"}
    with pytest.raises(ValueError, match="need 384 or more"):
        TrainingConfig.model_validate(result | {"ppo": {"batch": 128, "environments": 64}})


def test_remembered_answers_cost_again_and_failures_are_called_again() -> None:
    from envs.members.cached import CachedAnswers

    table = Table()
    answers = CachedAnswers(table)
    request = [
        MemberCall("sums", TASKS[0].question),
        MemberCall("broken", "x"),
        MemberCall("sums", TASKS[0].question),
    ]
    first, broken, again = answers.ask(request)
    assert first == again and first.cost == 0.1 and broken.text is None
    assert answers.ask(request) == [first, broken, again]
    assert [len(round_) for round_ in table.rounds] == [2, 1]
