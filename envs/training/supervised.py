"""Small perceptrons fitted to features, in addition to the agent that PPO trains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from envs.training.mlp import layers_of, perceptron
from runtime.artifacts.mlp import Layers


def fit(
    seen: np.ndarray,
    out: int,
    loss: Callable[[torch.Tensor], torch.Tensor],
    *,
    seed: int,
    hidden: tuple[int, ...] = (64,),
    steps: int = 400,
) -> Layers:
    """A perceptron from features ``[n, size]`` to ``out`` numbers that makes ``loss`` of its output
    ``[n, out]`` small. Takes seconds: all rows in every step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = perceptron(seen.shape[1], hidden, out, last=0.01)
        rows = torch.from_numpy(seen)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(model(rows)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return layers_of(model)
