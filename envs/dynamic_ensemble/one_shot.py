"""A router with a single call, trained on every member's own answers: a baseline for agents (a
classifier over questions; Shnitzer et al., arXiv 2309.15789)."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from envs.dynamic_ensemble.env import World
from envs.dynamic_ensemble.mdp import State, stopped
from envs.dynamic_ensemble.terminator import TOGETHER
from envs.training.supervised import fit
from runtime.artifacts.mlp import Layers

NEVER = -1e9
"""Logit of an unavailable action: to stop before the first call."""


def train_one_shot(world: World, seed: int) -> Layers:
    """Layers of an agent with one call: the label of a question is the member whose single call has
    the highest return in the environment."""
    paid = np.stack([returns(world, member) for member in range(len(world.members))], axis=1)
    seen = world.features.encode([State(task.question) for task in world.tasks])
    wanted = torch.from_numpy(paid.argmax(axis=1))
    layers = fit(seen, len(world.members), lambda logits: cross_entropy(logits, wanted), seed=seed)
    weight, bias = layers[-1]
    stop = np.zeros((1, weight.shape[1]), dtype=weight.dtype)
    last = np.concatenate([weight, stop]), np.append(bias, bias.dtype.type(NEVER))
    return (*layers[:-1], last)


def returns(world: World, member: int) -> np.ndarray:
    """The return of calling one member and stopping, for each question: float64 ``[n]``."""
    paid: list[float] = []
    for start in range(0, len(world.tasks), TOGETHER):
        tasks = world.tasks[start : start + TOGETHER]
        steps = world.act([State(task.question) for task in tasks], tasks, [member] * len(tasks))
        for step in steps:
            end = 0.0 if step.terminated else stopped(step.state, world.reward).reward
            paid.append(step.reward + end)
    return np.array(paid)
