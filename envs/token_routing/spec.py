"""What PPO tunes for CITER: the environment and the router that acts in it."""

from __future__ import annotations

from envs.token_routing.env import TokenRoutingVectorEnv
from envs.token_routing.rl_module import RouterModule
from envs.training.config import PPOSettings
from envs.training.ppo import TrainingSpec


def _model_config(settings: PPOSettings) -> dict[str, object]:
    """A frozen router that was trained on preferences, with a critic of the configured widths."""
    critic = list(settings.hidden)
    return {"dropout": 0.0, "critic": critic, "frozen": True, "large_weight": 1.0}


TOKENS = TrainingSpec("orchestrion-tokens", TokenRoutingVectorEnv, RouterModule, _model_config)
