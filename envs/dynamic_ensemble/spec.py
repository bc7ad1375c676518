"""What PPO trains for DER: the environment and the module that acts in it."""

from __future__ import annotations

from envs.dynamic_ensemble.env import DynamicEnsembleVectorEnv
from envs.dynamic_ensemble.rl_module import AgentModule
from envs.training.config import PPOSettings
from envs.training.ppo import TrainingSpec


def _model_config(settings: PPOSettings) -> dict[str, object]:
    return {"hidden": list(settings.hidden)}


DER = TrainingSpec("orchestrion-der", DynamicEnsembleVectorEnv, AgentModule, _model_config)
