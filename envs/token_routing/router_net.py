"""CITER's router in torch (arXiv 2502.01976): h -> 2h -> h -> 1, batch normalisation and dropout
after the first layer; and its weights as they are served."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from runtime.artifacts.mlp import Layers


class RouterNet(nn.Module):
    """A logit for each state: the log-odds that the small member's own token is good enough."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.wide = nn.Linear(width, 2 * width)
        self.norm = nn.BatchNorm1d(2 * width)
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(2 * width, width)
        self.last = nn.Linear(width, 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``[n, width]`` to ``[n]``."""
        inner = self.dropout(self.norm(self.wide(states)).relu())
        logits: torch.Tensor = self.last(self.dropout(self.narrow(inner))).squeeze(-1)
        return logits


@torch.no_grad()
def folded(net: RouterNet) -> Layers:
    """Two layers that compute what the net does when it does not learn: the normalisation is part
    of the first, and the two linear layers after the ReLU are one."""
    norm = net.norm
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    first = net.wide.weight * scale[:, None]
    first_bias = (net.wide.bias - norm.running_mean) * scale + norm.bias
    second = net.last.weight @ net.narrow.weight
    second_bias = net.last.weight @ net.narrow.bias + net.last.bias
    return ((_array(first), _array(first_bias)), (_array(second), _array(second_bias)))


def _array(value: torch.Tensor) -> np.ndarray:
    array: np.ndarray = value.detach().cpu().numpy().astype(np.float32)
    return array
