"""The configuration of process reward models. Light: imports neither torch nor transformers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from runtime.config.aux_models import AuxModelConfig
from runtime.config.base import Strict
from runtime.config.engines import EngineConfig, TransformersEngine
from runtime.config.members import MemberConfig


class StepTagReward(Strict):
    """A causal LM that was trained to write a good or a bad token after each step's tag, as
    Math-Shepherd (arXiv 2312.08935). The defaults are that model's."""

    type: Literal["step-tags"] = "step-tags"
    engine: EngineConfig
    """transformers or vllm."""
    tag: str = "ки"
    """Stands at the end of every step; one token."""
    good: str = "+"
    bad: str = "-"
    """The tokens whose probabilities are compared after a tag."""
    last: int | None = Field(None, ge=1)
    """Only so many of the newest steps are read; absent: all. A judge of short texts is quick, and
    errs about other steps than one that reads everything. Its template may leave the question out.
    """
    template: str = "{question} {steps}"
    step: str = "{text} {tag}"
    """How one step is written; ``{n}`` is its number, from 1."""
    between: str = "\n"
    """Between two steps."""

    @model_validator(mode="after")
    def _has_places(self) -> StepTagReward:
        for field, value, names in (
            ("template", self.template, ("steps",) if self.last else ("question", "steps")),
            ("step", self.step, ("text", "tag")),
        ):
            for name in names:
                if "{" + name + "}" not in value:
                    raise ValueError(f"{field}: {{{name}}} is missing")
        if not self.template.rstrip().endswith("{steps}"):
            raise ValueError("template: must end with {steps}, so that later steps can follow")
        return self


class ClassifierReward(Strict):
    """A token or sequence classifier of transformers, or a Qwen2.5-Math-PRM (arXiv 2501.07301).

    A token classifier is read at the ``tag`` after each step; a sequence classifier reads the text
    up to each step."""

    type: Literal["classifier"] = "classifier"
    weights: str
    """``hf:org/name[@revision]``, ``pypi:…``, ``zoo:name`` or a folder."""
    sha256: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    tag: str = "<extra_0>"
    """One token, after each step; token classifiers only."""
    good: int = Field(1, ge=0)
    """The label that means a right step. Of a model with one label the logit is read."""
    system: str | None = None
    """With the model's chat template: the system message. Qwen2.5-Math-PRM wants "Please reason
    step by step, and put your final answer within \\\\boxed{}."."""
    between: str = ""
    """Between two steps, after the tag; "\\n" for most sequence classifiers."""
    max_batch: int = Field(16, ge=1)
    """Texts in one forward pass."""
    max_context: int | None = Field(None, ge=8)
    """Window in tokens; the model's own when absent."""

    def engine_alike(self) -> TransformersEngine:
        """An engine with the same weights: what fetching and sizing go by."""
        return TransformersEngine(
            weights=self.weights,
            sha256=self.sha256,
            dtype=self.dtype,
            device=self.device,
            cache_mb=0,
            rows_mb=0,
        )


OneJudge = Annotated[StepTagReward | ClassifierReward, Field(discriminator="type")]


class RewardEnsembleConfig(Strict):
    """Several judges in one replica, whose values are taken together (arXiv 2310.02743): what one
    of them errs about, the others seldom do. Those on vLLM share the replica's card: give each its
    ``gpu_memory_utilization``."""

    type: Literal["several"] = "several"
    judges: tuple[OneJudge, ...] = Field(min_length=2)
    take: Literal["mean", "min"] = "mean"
    """``min`` is the value of the judge most in doubt."""


Judge = Annotated[
    StepTagReward | ClassifierReward | RewardEnsembleConfig, Field(discriminator="type")
]


class RewardModelConfig(AuxModelConfig):
    """One process reward model: how it judges, and how it is served."""

    judge: Judge

    @property
    def judges(self) -> tuple[StepTagReward | ClassifierReward, ...]:
        """The models that judge, one or several."""
        return self.judge.judges if isinstance(self.judge, RewardEnsembleConfig) else (self.judge,)

    def as_members(self) -> list[MemberConfig]:
        """LLMs that would take the same. All are in one replica, whose resources the first has."""
        nothing = self.replica.model_copy(update={"num_cpus": 0.0, "num_gpus": 0.0})
        return [
            MemberConfig(
                engine=judge.engine if isinstance(judge, StepTagReward) else judge.engine_alike(),
                price=self.price,
                timeout_s=self.timeout_s,
                retries=self.retries,
                replica=nothing if number else self.replica,
            )
            for number, judge in enumerate(self.judges)
        ]

    def as_member(self) -> MemberConfig:
        """The LLM whose replicas would take the same."""
        return self.as_members()[0]

    @model_validator(mode="after")
    def _resources_suffice(self) -> RewardModelConfig:
        self.as_members()
        return self
