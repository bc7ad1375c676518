"""Configuration of token router training: one YAML file next to the Serve config."""

from __future__ import annotations

from pydantic import Field

from envs.training.config import PPOSettings, TrainingData
from runtime.config.base import Strict


class PreferenceSettings(Strict):
    """The preference objective: cross-entropy to the preferred action. The paper's rate is 1e-7 and
    its batch 80, for states of 1,536 values and up to 1,000 epochs; ours suit small networks."""

    rate: float = Field(1e-3, gt=0)
    batch: int = Field(256, ge=8)
    epochs: int = Field(10, ge=1)
    """At most; ``patience`` ends earlier."""
    patience: int = Field(3, ge=1)
    """Epochs without a lower loss on the questions that were set aside."""
    aside: float = Field(0.2, gt=0, lt=1)
    """Share of the questions that are set aside; those of one ``group`` stay together."""
    dropout: float = Field(0.1, ge=0, lt=1)
    large_weight: float | None = Field(None, gt=0)
    """Weight of a token at which the large member is preferred, the others' being 1. Default: the
    square root of how many times rarer these are, since what is served is a threshold."""
    seed: int = 0


class TokenReward(Strict):
    """Of an episode: its quality at the end, less what the large member's tokens cost."""

    alpha: float = Field(0.02, ge=0)
    """Of each token that the large member writes."""
    good: float = Field(0.5, ge=0, le=1)
    """Quality from which an answer counts as right."""


class TokenTrainingConfig(TrainingData):
    """The training file of CITER."""

    ensemble: str
    """The ensemble of type ``citer`` that the router is for."""
    questions: str
    """A JSONL file with ``question``, ``answer`` and ``reference``: the whole right text."""
    reward: TokenReward = TokenReward()
    rounds: int = Field(2, ge=1)
    """Of collecting and training; from the second on, open cases are judged with the router of the
    round before."""
    collectors: int = Field(2, ge=1)
    """Ray actors that collect."""
    preference: PreferenceSettings = PreferenceSettings()
    ppo: PPOSettings | None = None
    """Tuning in the environment, from the last round's router; default: none."""
    tuned: str | None = None
    """Folder of the tuned router."""
    first: str | None = None
    """Folder of the first round's router, to compare."""
    co_llm: str | None = None
    """Also trains Co-LLM's deferral on the same records, into this folder."""
    out: str | None = None
    """Folder of the last round's router; default: the ensemble's router folder."""
