"""The training loop that all models of the zoo share."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from rich.progress import track
from transformers import PreTrainedModel


def fit(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    losses: Iterator[torch.Tensor],
    *,
    steps: int,
    warm: int,
    name: str,
) -> list[list[float]]:
    """Descends along ``losses``, each computed when it is asked for, with ``warm`` steps of warming
    up and a cosine down to a fiftieth. Returns the curve as [step, mean loss since the last entry].
    """

    def rate(step: int) -> float:
        rising = min(1.0, (step + 1) / warm)
        return rising * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    curve: list[list[float]] = []
    recent: list[float] = []
    model.train()
    for step in track(range(1, steps + 1), description=name):
        loss = next(losses)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % 50 == 0 or step == steps:
            curve.append([step, round(sum(recent) / len(recent), 4)])
            recent = []
    return curve
