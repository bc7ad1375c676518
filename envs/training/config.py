"""Configuration of PPO and of training data."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from envs.quality.config import ExactMatchConfig, QualityConfig
from runtime.config.base import Strict


class PPOSettings(Strict):
    """PPO (arXiv 1707.06347). ``clip`` and ``gamma`` are the paper's. Others are RLlib's usual
    values where the paper's would learn slowly, as its networks start from a language model."""

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
    """Concurrent questions in each runner."""
    runners: int = Field(0, ge=0)
    """Actors that collect experience; 0 collects in the trainer's own process."""
    seed: int = 0


class TrainingData(Strict):
    """Fields of every training file. Paths are relative to the working folder, as in the Serve
    config."""

    serve: str
    """The Serve config with the members and the ensemble."""
    questions: str
    """A JSONL file with ``question`` and ``answer``."""
    limit: int | None = Field(None, ge=1)
    """Number of questions, from the first. Default: all."""
    max_tokens: int = Field(64, ge=1)
    """Of one answer."""
    quality: QualityConfig = ExactMatchConfig()
    run: str
    """Folder of checkpoints, TensorBoard events and other training files."""
    checkpoint_every: int = Field(10, ge=1)
    """Iterations between two checkpoints."""

    @property
    def folder(self) -> Path:
        return Path(self.run)
