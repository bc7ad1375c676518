"""The quality that a configuration describes."""

from __future__ import annotations

from envs.quality.base import Quality
from envs.quality.config import ExactMatchConfig, QualityConfig, RewardModelConfig, TokenF1Config
from envs.quality.reward_model import Judge, RewardModel
from envs.quality.text_match import ExactMatch, TokenF1
from runtime.errors import ConfigError


def build_quality(config: QualityConfig, judge: Judge | None = None) -> Quality:
    """The quality that a configuration describes; ``judge`` calls the reward model that it names.

    Raises ``ConfigError`` when that reward model is missing."""
    if isinstance(config, RewardModelConfig):
        if judge is None:
            raise ConfigError(f"quality: the reward model {config.reward!r} is not available")
        return RewardModel(judge)
    if isinstance(config, ExactMatchConfig):
        return ExactMatch(config)
    if isinstance(config, TokenF1Config):
        return TokenF1(config)
    from envs.quality.bertscore import BertScore

    return BertScore(config)
