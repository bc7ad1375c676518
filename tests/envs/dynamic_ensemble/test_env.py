"""The environment alone and side by side, on members with a table each."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.dynamic_ensemble.env import (
    MASK,
    OBSERVATION,
    DynamicEnsembleEnv,
    DynamicEnsembleVectorEnv,
)
from envs.dynamic_ensemble.mdp import RewardConfig
from tests.support.models.table_members import Table, world

SUMS, ANIMALS, BROKEN, STOP = range(4)


def alone(reward: RewardConfig | None = None) -> DynamicEnsembleEnv:
    return DynamicEnsembleEnv({"world": world(reward=reward)})


def test_gymnasium_finds_nothing_wrong() -> None:
    check_env(alone(), skip_render_check=True)


def test_an_episode() -> None:
    env = alone()
    seen, info = env.reset(seed=1, options={"task": 0})
    assert seen[MASK].tolist() == [1, 1, 1, 0] and info["calls"] == 0
    seen, reward, ended, truncated, info = env.step(ANIMALS)
    assert (reward, ended, truncated) == (pytest.approx(-0.3), False, False)
    assert seen[MASK].tolist() == [1, 1, 1, 1] and seen[OBSERVATION][3] == 1.0
    _, reward, *_ = env.step(SUMS)
    assert reward == pytest.approx(5 - 0.1)
    _, reward, ended, _, info = env.step(STOP)
    assert reward == pytest.approx(3) and ended
    assert info == {
        "quality": 1.0,
        "good": 1.0,
        "cost": pytest.approx(0.4),
        "calls": 2,
        "route": ["animals", "sums"],
    }


def test_a_member_that_fails_costs_its_call_and_ends_nothing() -> None:
    env = alone()
    env.reset(seed=1, options={"task": 1})
    env.step(ANIMALS)
    _, reward, ended, _, info = env.step(BROKEN)
    assert reward == pytest.approx(-0.05) and not ended and info["quality"] == 1.0
    _, reward, ended, *_ = env.step(STOP)
    assert reward == pytest.approx(3) and ended


def test_the_same_seed_draws_the_same_questions() -> None:
    def questions(seed: int) -> list[float]:
        env = alone()
        first = env.reset(seed=seed)[0][OBSERVATION][0]
        return [first, *(env.reset()[0][OBSERVATION][0] for _ in range(12))]

    assert questions(3) == questions(3)
    assert questions(3) != questions(4)


def test_calls_of_all_sub_environments_are_in_flight_together() -> None:
    answers = Table()
    env = DynamicEnsembleVectorEnv({"world": world(answers), "num_envs": 6})
    env.reset(seed=0)
    env.step(np.array([SUMS, ANIMALS, SUMS, BROKEN, SUMS, ANIMALS]))
    assert len(answers.rounds) == 1 and len(answers.rounds[0]) == 6


def test_the_step_after_the_last_begins_anew() -> None:
    answers = Table()
    env = DynamicEnsembleVectorEnv({"world": world(answers), "num_envs": 2})
    assert env.metadata["autoreset_mode"] == gym.vector.AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    env.step(np.array([SUMS, ANIMALS]))
    _, rewards, ended, _, infos = env.step(np.array([STOP, SUMS]))
    assert ended.tolist() == [True, False] and rewards[0] != 0
    assert infos["calls"].tolist() == [1, 2]
    seen, rewards, ended, _, _ = env.step(np.array([ANIMALS, SUMS]))
    assert [ask.member for ask in answers.rounds[-1]] == ["sums"], "its action is ignored"
    assert rewards[0] == 0 and not ended.any()
    assert seen[MASK].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_side_by_side_is_the_same_as_one_after_another() -> None:
    """Each sub-environment against a single one that is given its question and its actions."""
    draw = np.random.default_rng(5)
    env = DynamicEnsembleVectorEnv({"world": world(), "num_envs": 3})
    seen, _ = env.reset(seed=11)
    single = [alone() for _ in range(3)]
    fresh = [True] * 3
    before = [False] * 3
    for _ in range(40):
        actions = []
        for place, one in enumerate(single):
            if fresh[place]:
                task = int(seen[OBSERVATION][place][0])
                own, _ = one.reset(seed=0, options={"task": task})
                assert (own[OBSERVATION] == seen[OBSERVATION][place]).all()
            may = np.flatnonzero(seen[MASK][place])
            actions.append(int(draw.choice(may)))
        seen, rewards, ended, _, _ = env.step(np.array(actions))
        for place, one in enumerate(single):
            if before[place]:  # this step was the reset
                fresh[place] = True
                continue
            own, reward, done, *_ = one.step(actions[place])
            assert (reward, done) == (pytest.approx(rewards[place]), ended[place])
            assert (own[OBSERVATION] == seen[OBSERVATION][place]).all()
            fresh[place] = False
        before = ended.tolist()
