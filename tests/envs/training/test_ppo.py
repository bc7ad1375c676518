"""PPO by RLlib on members with a table each: it learns whom to ask, and is served without RLlib."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.dynamic_ensemble.env import MASK, OBSERVATION, World
from envs.dynamic_ensemble.export import exported
from envs.dynamic_ensemble.mdp import State
from envs.dynamic_ensemble.rl_module import AgentModule
from envs.dynamic_ensemble.spec import DER
from envs.training.config import PPOSettings
from envs.training.ppo import ppo
from policies.cascade.sequential.agent import load_agent
from policies.cascade.sequential.transfer_prompt import TRANSFER
from tests.support.models.table_members import TASKS, world
from tests.support.ray_cluster import small_ray

SETTINGS = PPOSettings(iterations=12, batch=256, minibatch=64, environments=8, hidden=(32,), seed=3)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    # RLlib registers its own environment anew for each algorithm of a process.
    pytest.mark.filterwarnings("ignore:.*already in registry"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with small_ray():
        yield


def a_world(config: Any) -> World:
    return world()


def test_it_learns_whom_to_ask_and_when_to_stop(cluster: None, tmp_path: Path) -> None:
    algorithm = ppo(SETTINGS, a_world, DER).build_algo()
    try:
        result = [algorithm.train()["env_runners"] for _ in range(SETTINGS.iterations)]
        module = algorithm.get_module()
        assert isinstance(module, AgentModule)
        agent = exported(module, world(), "shape", {}, dict.fromkeys(world().members, TRANSFER), {})
    finally:
        algorithm.stop()
    assert result[-1]["episode_return_mean"] > result[0]["episode_return_mean"] + 1.0
    assert result[-1]["episode"]["quality"] >= 0.9 and result[-1]["episode"]["calls"] <= 2.0
    agent.save(tmp_path)
    served, here = load_agent(tmp_path), world()
    states = [State(task.question) for task in TASKS]
    seen = here.observe(states)
    logits = served.logits(seen[OBSERVATION])
    own = module.actor(torch.from_numpy(seen[OBSERVATION])).detach().numpy()
    assert logits == pytest.approx(own, abs=1e-5)
    chosen = np.where(seen[MASK], logits, -np.inf).argmax(axis=1)
    assert [here.members[i] for i in chosen] == ["sums", "animals"]
    right = [State(t.question, t.answer, 1.0, 1) for t in TASKS]
    stop = served.logits(here.observe(right)[OBSERVATION]).argmax(axis=1)
    assert stop.tolist() == [len(here.members)] * 2


def test_masked_actions_are_never_drawn(cluster: None) -> None:
    algorithm = ppo(SETTINGS, a_world, DER).build_algo()
    try:
        module = algorithm.get_module()
        first = world().observe([State(TASKS[0].question)])
        batch = {"obs": {key: torch.from_numpy(value) for key, value in first.items()}}
        logits = module.forward_exploration(batch)["action_dist_inputs"]
    finally:
        algorithm.stop()
    assert torch.softmax(logits, -1)[0, -1] == 0
