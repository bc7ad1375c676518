"""What a training run is told: one YAML file beside the Serve config of the members."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from envs.mdp import RewardConfig
from envs.quality import ExactMatchConfig, QualityConfig
from runtime.config.base import Strict


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


class LiveAnswers(Strict):
    """Members that run: those of the cluster at RAY_ADDRESS, or started here for the training."""

    type: Literal["live"] = "live"
    remember: bool = True
    """Greedy answers are asked for once and cost again whenever they are given again. Off: every
    call is made. Sampled answers are never remembered."""


class LoggedAnswers(Strict):
    """A log by ``orchestrion record``; no member runs."""

    type: Literal["log"] = "log"
    path: str


class WarmStart(Strict):
    """Behaviour cloning of the best recorded route of each question, before PPO."""

    log: str
    """A log by ``orchestrion record``; the best routes are looked for in it."""
    epochs: int = Field(20, ge=1)


class TaughtOn(Strict):
    """What every training's file says. Paths are relative to the working folder, as they are in the
    Serve config."""

    serve: str
    """The Serve config with the members and the ensemble."""
    questions: str
    """A JSONL file with ``question`` and ``answer``."""
    limit: int | None = Field(None, ge=1)
    """The first so many questions; absent: all."""
    max_tokens: int = Field(64, ge=1)
    """Of one answer."""
    quality: QualityConfig = ExactMatchConfig()
    run: str
    """Folder of checkpoints, TensorBoard events and what else the training keeps."""
    checkpoint_every: int = Field(10, ge=1)
    """Iterations between two checkpoints."""

    @property
    def folder(self) -> Path:
        return Path(self.run)


class TrainingConfig(TaughtOn):
    """DER's."""

    ensemble: str
    """The ensemble of type ``der`` that the agent is for: its members, prompts and encoder."""
    reward: RewardConfig = RewardConfig()
    ppo: PPOSettings = PPOSettings()
    answers: Annotated[LiveAnswers | LoggedAnswers, Field(discriminator="type")] = LiveAnswers()
    warm_start: WarmStart | None = None
    terminator: bool = False
    """Also trains a network that says whether an answer meets the threshold."""
    out: str | None = None
    """Folder of the export; absent: the one that the ensemble takes its agent from."""
    one_shot: str | None = None
    """Also trains a router that asks one member only, into this folder: a baseline."""

    @model_validator(mode="after")
    def _can_stop(self) -> TrainingConfig:
        if self.reward.ends == "threshold" and not self.terminator:
            raise ValueError(
                "reward.ends: threshold teaches no stop action; set terminator: true, or "
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
