"""Process reward models by kind. Heavy imports happen when one is built, not before."""

from __future__ import annotations

from runtime.rewards.base import Judged, Reasoning, RewardModel, judge_all
from runtime.rewards.config import ClassifierReward, RewardModelConfig, StepTagReward

__all__ = [
    "Judged",
    "Reasoning",
    "RewardModel",
    "RewardModelConfig",
    "build_reward_model",
    "judge_all",
]


def build_reward_model(config: RewardModelConfig) -> RewardModel:
    """Loads the weights; blocks until the model can judge."""
    match config.judge:
        case StepTagReward():
            from runtime.engines import build_engine
            from runtime.rewards.step_tags import StepTagModel

            return StepTagModel(build_engine(config.as_member().served_engine), config.judge)
        case ClassifierReward():
            from runtime.rewards.classifier import ClassifierModel

            return ClassifierModel(config.judge)
