"""PPO by RLlib: what is configured, and the algorithm made of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from envs.training.config import PPOSettings

EPISODE = ("quality", "good", "cost", "calls")
"""Reported for each finished episode, besides its reward."""


class EpisodeMetrics(RLlibCallback):
    """Quality, cost and calls of finished episodes, as means over an iteration."""

    def on_episode_end(self, *, episode: Any, metrics_logger: Any = None, **kwargs: Any) -> None:
        info = episode.get_infos(-1)
        for name in EPISODE:
            metrics_logger.log_value(
                ("episode", name), float(info[name]), reduce="mean", window=256
            )


class FreshEnvRunner(SingleAgentEnvRunner):
    """Begins each round of experience with new episodes and the round's own seed, so that a resumed
    training equals an uninterrupted one."""

    def begin(self, seed: int) -> None:
        """Before a round. ``seed`` is the round's."""
        seed += 1000 * self.worker_index
        random.seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        self._seed = seed
        self._needs_initial_reset = True


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """An environment and the module that acts in it."""

    name: str
    """The environment's name in RLlib's registry."""
    environment: type[VectorEnv[Any, Any, Any]]
    module: type[TorchRLModule]
    model_config: Callable[[PPOSettings], Mapping[str, Any]]
    """The module's ``model_config``."""


def ppo(
    settings: PPOSettings, world: Callable[[Mapping[str, Any]], Any], spec: TrainingSpec
) -> PPOConfig:
    """RLlib's configuration; ``.build_algo()`` makes the algorithm. ``world`` makes one in each
    process that collects experience."""
    register_env(spec.name, spec.environment)
    return (
        PPOConfig()
        .environment(spec.name, env_config={"world": world})
        .env_runners(
            env_runner_cls=FreshEnvRunner,
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
            # The clip bounds an update; the penalty's coefficient is not in RLlib's checkpoints.
            use_kl_loss=False,
            gamma=settings.gamma,
            lambda_=settings.lambda_,
            entropy_coeff=settings.entropy,
            vf_clip_param=100.0,
            grad_clip=1.0,
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=spec.module, model_config=dict(spec.model_config(settings))
            )
        )
        .learners(num_learners=0, num_gpus_per_learner=0)
        # A runner that dies ends the training; members' failures are no faults.
        .fault_tolerance(restart_failed_env_runners=False)
        .callbacks(EpisodeMetrics)
        .debugging(seed=settings.seed, log_level="WARN")
    )
