"""PPO by RLlib for DER's environment: what is configured, and the algorithm made of it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from pydantic import Field
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env
from torch import nn

from envs.dynamic_ensemble import DynamicEnsembleVectorEnv, MakeWorld, World
from envs.module import AgentModule
from policies.cascade.agent import Agent
from runtime.config import Strict

ENVIRONMENT = "orchestrion-der"
EPISODE = ("quality", "cost", "calls")
"""What is told of each finished episode, besides its reward."""


class PPOSettings(Strict):
    """PPO (arXiv 1707.06347). Where the paper's own settings would not learn in little time (its
    networks start from a language model), ours are RLlib's usual ones; ``clip`` and ``gamma`` are
    the paper's."""

    iterations: int = Field(60, ge=1)
    batch: int = Field(512, ge=16)
    """Environment steps between two updates."""
    minibatch: int = Field(128, ge=8)
    epochs: int = Field(6, ge=1)
    """Passes over a batch."""
    rate: float = Field(1e-3, gt=0)
    clip: float = Field(0.3, gt=0)
    gamma: float = Field(0.95, gt=0, le=1)
    """Discount of later rewards."""
    lambda_: float = Field(0.95, ge=0, le=1)
    """Of generalised advantages (arXiv 1506.02438); the paper takes plain returns, which is 1."""
    entropy: float = Field(0.01, ge=0)
    hidden: tuple[int, ...] = (256,)
    """Sizes of the hidden layers; the paper's is one of 256."""
    environments: int = Field(32, ge=1)
    """Questions that are worked on at the same time, in each runner."""
    runners: int = Field(0, ge=0)
    """Actors that collect experience; 0 collects in the trainer's own process."""
    seed: int = 0


class EpisodeMetrics(RLlibCallback):
    """Quality, cost and calls of finished episodes, as means over an iteration."""

    def on_episode_end(self, *, episode: Any, metrics_logger: Any = None, **kwargs: Any) -> None:
        told = episode.get_infos(-1)
        for name in EPISODE:
            metrics_logger.log_value(
                ("episode", name), float(told[name]), reduce="mean", window=256
            )


def ppo(settings: PPOSettings, world: MakeWorld) -> PPOConfig:
    """RLlib's configuration; ``.build_algo()`` makes the algorithm. ``world`` makes one in each
    process that collects experience."""
    register_env(ENVIRONMENT, DynamicEnsembleVectorEnv)
    return (
        PPOConfig()
        .environment(ENVIRONMENT, env_config={"world": world})
        .env_runners(
            num_env_runners=settings.runners,
            num_envs_per_env_runner=settings.environments,
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            rollout_fragment_length="auto",
            # The default drops what a slow member delays by more than a minute.
            sample_timeout_s=3600,
        )
        .training(
            lr=settings.rate,
            train_batch_size_per_learner=settings.batch,
            minibatch_size=settings.minibatch,
            num_epochs=settings.epochs,
            clip_param=settings.clip,
            gamma=settings.gamma,
            lambda_=settings.lambda_,
            entropy_coeff=settings.entropy,
            vf_clip_param=100.0,
            grad_clip=1.0,
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=AgentModule, model_config={"hidden": list(settings.hidden)}
            )
        )
        .learners(num_learners=0, num_gpus_per_learner=0)
        .fault_tolerance(restart_failed_env_runners=True)
        .callbacks(EpisodeMetrics)
        .debugging(seed=settings.seed, log_level="WARN")
    )


def layers_of(module: AgentModule) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The actor's weights ``[out, in]`` and biases ``[out]``, as an ``Agent`` holds them."""
    return tuple(
        (layer.weight.detach().cpu().numpy().copy(), layer.bias.detach().cpu().numpy().copy())
        for layer in module.actor
        if isinstance(layer, nn.Linear)
    )


def exported(
    module: AgentModule, world: World, encoder: str, template: str, about: dict[str, Any]
) -> Agent:
    """A trained actor as it is served."""
    return Agent(
        members=world.members,
        layers=layers_of(module),
        t_max=world.reward.t_max,
        encoder=encoder,
        template=template,
        about=about,
    )
