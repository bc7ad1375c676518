"""Configuration of DER training: one YAML file next to the Serve config of the members."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from envs.dynamic_ensemble.mdp import RewardConfig
from envs.training.config import PPOSettings, TrainingData
from runtime.config.base import Strict


class LiveAnswers(Strict):
    """Members that run: those of the cluster at RAY_ADDRESS, or started here for the training."""

    type: Literal["live"] = "live"
    remember: bool = True
    """Caches greedy answers; a cached answer costs the same again. False: every call is made.
    Sampled answers are never cached."""


class LoggedAnswers(Strict):
    """A log of ``orchestrion record``; no members run."""

    type: Literal["log"] = "log"
    path: str


class WarmStart(Strict):
    """Behaviour cloning of the best recorded route of each question, before PPO."""

    log: str
    """A log of ``orchestrion record`` that holds the routes."""
    epochs: int = Field(20, ge=1)


class TrainingConfig(TrainingData):
    """The training file of DER."""

    ensemble: str
    """The ensemble of type ``der`` that the agent is for: its members, prompts and encoder."""
    reward: RewardConfig = RewardConfig()
    ppo: PPOSettings = PPOSettings()
    answers: Annotated[LiveAnswers | LoggedAnswers, Field(discriminator="type")] = LiveAnswers()
    warm_start: WarmStart | None = None
    terminator: bool = False
    """Also trains a network that predicts whether an answer meets the threshold."""
    out: str | None = None
    """Folder of the export. Default: the ensemble's agent folder."""
    one_shot: str | None = None
    """Also trains a router with a single call, into this folder: a baseline."""

    @model_validator(mode="after")
    def _can_stop(self) -> TrainingConfig:
        if self.reward.ends == "threshold" and not self.terminator:
            raise ValueError(
                "reward.ends: threshold trains no stop action; set terminator: true, or "
                "reward.ends: stop"
            )
        return self

    @model_validator(mode="after")
    def _episodes_end(self) -> TrainingConfig:
        ppo, most = self.ppo, self.reward.t_max + 1
        least = ppo.environments * max(1, ppo.runners) * most
        if ppo.batch < least:
            raise ValueError(
                f"ppo.batch {ppo.batch} cuts episodes: {ppo.environments} environments in "
                f"{max(1, ppo.runners)} processes with up to {most} steps need {least} or more"
            )
        return self
