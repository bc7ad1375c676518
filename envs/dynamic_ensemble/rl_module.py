"""The agent's network for RLlib's new API stack: actor and critic, both over a state's features.

As in the paper (arXiv 2412.07448) they share nothing but the features.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from envs.dynamic_ensemble.env import MASK, OBSERVATION
from envs.training.mlp import perceptron


class AgentModule(TorchRLModule, ValueFunctionAPI):
    """``model_config``: ``hidden``, the sizes of the hidden layers."""

    actor: nn.Sequential
    critic: nn.Sequential

    def setup(self) -> None:
        size = self.observation_space[OBSERVATION].shape[0]
        hidden = tuple(self.model_config["hidden"])
        # Small logits at first: all members alike, so that all are tried.
        self.actor = perceptron(size, hidden, int(self.action_space.n), last=0.01)
        self.critic = perceptron(size, hidden, 1, last=1.0)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        seen = batch[Columns.OBS]
        logits = self.actor(seen[OBSERVATION])
        lowest = torch.finfo(logits.dtype).min
        return {Columns.ACTION_DIST_INPUTS: logits.masked_fill(seen[MASK] == 0, lowest)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        values: torch.Tensor = self.critic(batch[Columns.OBS][OBSERVATION]).squeeze(-1)
        return values
