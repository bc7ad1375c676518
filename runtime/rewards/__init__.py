"""Process reward models. Heavy imports happen when a model is built."""

from __future__ import annotations

from runtime.config.engines import EngineConfig
from runtime.config.reward_models import (
    ClassifierReward,
    RewardEnsembleConfig,
    RewardModelConfig,
    StepTagReward,
)
from runtime.rewards.base import Judged, Reasoning, RewardModel, judge_all

__all__ = [
    "Judged",
    "Reasoning",
    "RewardModel",
    "RewardModelConfig",
    "build_reward_model",
    "judge_all",
]


def build_reward_model(config: RewardModelConfig) -> RewardModel:
    """Loads the weights; blocks until the model is ready. Raises ``WeightsError``,
    ``ConfigError``."""
    engines = [member.served_engine for member in config.as_members()]
    built = [_build(judge, engine) for judge, engine in zip(config.judges, engines, strict=True)]
    if isinstance(config.judge, RewardEnsembleConfig):
        from runtime.rewards.ensemble import RewardEnsemble

        return RewardEnsemble(built, config.judge.take)
    return built[0]


def _build(judge: StepTagReward | ClassifierReward, engine: EngineConfig) -> RewardModel:
    if isinstance(judge, StepTagReward):
        from runtime.engines import build_engine
        from runtime.rewards.step_tags import StepTagModel

        return StepTagModel(build_engine(engine), judge)
    from runtime.rewards.classifier import ClassifierModel

    return ClassifierModel(judge)
