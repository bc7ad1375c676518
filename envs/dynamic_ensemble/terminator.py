"""A network that predicts whether an answer meets the threshold: a stop rule next to the agent.

Its examples are the states of random routes over the training questions.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from envs.dynamic_ensemble.env import World
from envs.dynamic_ensemble.mdp import State
from envs.training.supervised import fit
from runtime.artifacts.mlp import Layers, through

TOGETHER = 64
"""Concurrent questions."""


def train_terminator(world: World, seed: int) -> tuple[Layers, dict[str, float]]:
    """Layers from features to one logit, and the accuracy on the training examples."""
    seen, good = examples(world, seed)
    wanted = torch.tensor(good, dtype=torch.float32)
    layers = fit(
        seen, 1, lambda logits: binary_cross_entropy_with_logits(logits[:, 0], wanted), seed=seed
    )
    right = float(np.mean((through(layers, seen)[:, 0] > 0) == np.array(good)))
    return layers, {"examples": len(good), "good": float(np.mean(good)), "right": round(right, 4)}


def examples(world: World, seed: int) -> tuple[np.ndarray, list[bool]]:
    """Features ``[n, size]`` of states with an answer, and whether it is good enough."""
    draw = random.Random(seed)
    states: list[State] = []
    for start in range(0, len(world.tasks), TOGETHER):
        tasks = world.tasks[start : start + TOGETHER]
        here = [State(task.question) for task in tasks]
        for _ in range(world.reward.t_max):
            actions = [draw.randrange(len(world.members)) for _ in tasks]
            here = [step.state for step in world.act(here, tasks, actions)]
            states += [state for state in here if state.answer is not None]
    good = [state.quality >= world.reward.threshold for state in states]
    return world.features.encode(states), good
