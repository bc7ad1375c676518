"""The router as RLlib's module: over preference data, and in the environment with a critic."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from envs.token_routing.router_net import RouterNet
from envs.training.mlp import perceptron


class RouterModule(TorchRLModule, ValueFunctionAPI):
    """``model_config``: ``dropout``, ``critic`` (sizes of its hidden layers), and ``frozen``: the
    normalisation keeps its statistics and nothing is dropped out, as PPO needs it, whose old and
    new probabilities must be those of one network."""

    net: RouterNet
    critic: nn.Sequential

    def setup(self) -> None:
        width = self.observation_space.shape[0]
        self.net = RouterNet(width, float(self.model_config["dropout"]))
        self.critic = perceptron(width, tuple(self.model_config["critic"]), 1, last=1.0)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._logits(batch, learns=False)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._logits(batch, learns=not self.model_config["frozen"])

    def _logits(self, batch: dict[str, Any], learns: bool) -> dict[str, Any]:
        self.net.train(learns)
        odds = self.net(batch[Columns.OBS])
        return {Columns.ACTION_DIST_INPUTS: torch.stack([-odds / 2, odds / 2], dim=-1)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        values: torch.Tensor = self.critic(batch[Columns.OBS]).squeeze(-1)
        return values
