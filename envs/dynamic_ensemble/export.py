"""A trained DER agent as it is served."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.rl_module.torch import TorchRLModule

from envs.dynamic_ensemble.env import World
from envs.dynamic_ensemble.rl_module import AgentModule
from envs.training.mlp import layers_of
from policies.cascade.sequential.agent import Agent


def exported(
    module: TorchRLModule,
    world: World,
    encoder: str,
    reads: dict[str, Any],
    prompts: dict[str, str],
    about: dict[str, Any],
) -> Agent:
    """A trained actor as it is served."""
    assert isinstance(module, AgentModule)
    return Agent(
        members=world.members,
        layers=layers_of(module.actor),
        t_max=world.reward.t_max,
        encoder=encoder,
        reads=reads,
        prompts=prompts,
        stops=world.reward.ends == "stop",
        scale=world.features.scale,
        about=about,
    )
