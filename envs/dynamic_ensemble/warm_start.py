"""A warm start: behaviour cloning (RLlib's BC) of the best recorded routes, stored as Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from envs.dynamic_ensemble.best_routes import Choice, best_route
from envs.dynamic_ensemble.env import MASK, OBSERVATION, World
from envs.training.behavior_cloning import cloning
from envs.training.config import PPOSettings
from envs.training.mlp import layers_of, perceptron
from runtime.artifacts.mlp import Layers
from runtime.data.query_log import Replay

ROUTES = "routes.parquet"
BATCH = 256


class CloneModule(TorchRLModule):
    """The agent's actor over rows of features and mask: offline data has no nested columns."""

    actor: nn.Sequential

    def setup(self) -> None:
        count = int(self.action_space.n)
        size = self.observation_space.shape[0] - count
        self.actor = perceptron(size, tuple(self.model_config["hidden"]), count, last=0.01)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        seen = batch[Columns.OBS]
        count = int(self.action_space.n)
        logits = self.actor(seen[:, :-count])
        lowest = torch.finfo(logits.dtype).min
        return {Columns.ACTION_DIST_INPUTS: logits.masked_fill(seen[:, -count:] == 0, lowest)}


def clone(
    world: World, log: Replay, folder: Path, settings: PPOSettings, epochs: int
) -> tuple[Layers, float]:
    """Layers of an actor cloned from the best routes, and its accuracy on their choices. The routes
    are written to ``folder``."""
    routes = [best_route(world, log, task, settings.gamma) for task in world.tasks]
    table = rows(world, routes)
    # RLlib's BC goes through its data once in an iteration, and Ray Data takes seconds to begin.
    passes = pa.concat_tables([table] * epochs)
    seen, actions = np.stack(table[Columns.OBS].to_numpy()), table[Columns.ACTIONS].to_numpy()
    spaces: tuple[gym.Space[Any], gym.Space[Any]] = (
        gym.spaces.Box(-1.0, 1.0, seen.shape[1:], np.float32),
        gym.spaces.Discrete(len(world.members) + 1),
    )
    model = {"hidden": list(settings.hidden)}
    options: dict[str, Any] = {"rate": settings.rate, "batch": BATCH, "seed": settings.seed}
    with cloning(passes, folder / ROUTES, CloneModule, model, spaces, **options) as (module, once):
        once()
        assert isinstance(module, CloneModule)
        layers = layers_of(module.actor)
        with torch.inference_mode():
            outputs = module._forward({Columns.OBS: torch.from_numpy(seen)})
        same = outputs[Columns.ACTION_DIST_INPUTS].argmax(1).numpy() == actions
    return layers, float(same.mean())


def rows(world: World, routes: Sequence[Sequence[Choice]]) -> pa.Table:
    """Episodes in RLlib's columns, a row for each choice."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            Columns.EPS_ID,
            Columns.OBS,
            Columns.ACTIONS,
            Columns.REWARDS,
            Columns.NEXT_OBS,
            Columns.TERMINATEDS,
            Columns.TRUNCATEDS,
        )
    }
    for number, route in enumerate(routes):
        if not route:
            continue
        observed = world.observe([*(choice.state for choice in route), route[-1].step.state])
        seen = np.concatenate([observed[OBSERVATION], observed[MASK].astype(np.float32)], axis=1)
        for place, choice in enumerate(route):
            values = (
                str(number),
                seen[place],
                choice.action,
                choice.step.reward,
                seen[place + 1],
                place == len(route) - 1,
                False,
            )
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return pa.table(columns)
