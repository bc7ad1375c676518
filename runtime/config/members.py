"""Configuration of members: engine, prices, timeouts, replicas."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field, model_validator

from runtime.config.base import Strict
from runtime.config.engines import (
    EngineConfig,
    FlakyEngine,
    SlowEngine,
    VllmEngine,
    innermost,
)

SHARE_OF_PART: Final = 0.9
"""Of a part of a card: the rest is for what CUDA itself takes in each process."""


class Price(Strict):
    """Per million tokens, in the configured currency."""

    input: float = Field(0.0, ge=0)
    cached_input: float | None = Field(None, ge=0)
    """Tokens served from the prefix cache; absent: the same as ``input``. An answer that is written
    in pieces does not pay its own beginning again."""
    output: float = Field(0.0, ge=0)


class AutoscalingConfig(Strict):
    """How many replicas a member has, by its load."""

    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(2, ge=1)
    target_calls: float = Field(32.0, gt=0)
    """Calls that one replica is meant to have in flight: about as many as batch well."""
    upscale_delay_s: float = Field(30.0, ge=0)
    downscale_delay_s: float = Field(600.0, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> AutoscalingConfig:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is more than max_replicas {self.max_replicas}"
            )
        return self


class ReplicaConfig(Strict):
    """What one replica of a member takes and how many there are."""

    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    """GPUs of one replica. Below 1: a part of a card that small models share."""
    resources: dict[str, float] = {}
    num_replicas: int = Field(1, ge=1)
    autoscaling: AutoscalingConfig | None = None
    """Instead of ``num_replicas``."""
    max_ongoing_requests: int | None = Field(None, ge=1)
    """Messages (each may carry many calls) at one replica at a time. Absent: 64, and for vLLM twice
    its ``max_num_seqs``, so that a full batch finds the next one waiting."""
    max_queued_requests: int = Field(1024, ge=1)
    span_nodes: bool = False
    """The GPUs of one replica may be on several nodes."""

    @property
    def most_replicas(self) -> int:
        return self.num_replicas if self.autoscaling is None else self.autoscaling.max_replicas

    @model_validator(mode="after")
    def _one_or_the_other(self) -> ReplicaConfig:
        if self.autoscaling is not None and self.num_replicas != 1:
            raise ValueError("num_replicas and autoscaling exclude each other; leave one out")
        return self


class MemberConfig(Strict):
    """One LLM."""

    engine: EngineConfig
    price: Price = Price()
    timeout_s: float = Field(120.0, gt=0)
    """A call that takes longer counts as failed."""
    stop: tuple[str, ...] = ()
    """Texts at which this member ends an answer, as if it had written its EOS: a base model in a
    chat goes on with the next turn instead."""
    retries: int = Field(1, ge=0)
    """Times a failed call is repeated, on another replica where there is one, before the member
    is dropped from the session."""
    replica: ReplicaConfig = ReplicaConfig()

    @model_validator(mode="after")
    def _resources_suffice(self) -> MemberConfig:
        engine, gpus = innermost(self.engine), self.replica.num_gpus
        if not isinstance(engine, VllmEngine):
            return self
        if engine.workers > 1 and gpus not in (0, engine.workers):
            raise ValueError(
                f"replica.num_gpus is {gpus:g}, but tensor_parallel_size times "
                f"pipeline_parallel_size needs {engine.workers}"
            )
        if engine.workers == 1 and gpus > 1:
            raise ValueError(
                f"replica.num_gpus is {gpus:g}, but the engine uses one; set tensor_parallel_size"
            )
        if self.replica.span_nodes and (engine.workers == 1 or gpus == 0):
            raise ValueError("replica.span_nodes is for engines that several GPUs share")
        share = engine.gpu_memory_utilization
        if 0 < gpus < 1 and share is not None and share > gpus:
            raise ValueError(
                f"gpu_memory_utilization {share:g} is more than the {gpus:g} of a card that "
                "replica.num_gpus takes; lower it or take more of the card"
            )
        return self

    @property
    def served_engine(self) -> EngineConfig:
        """The engine as a replica runs it, with what follows from the replica's resources."""
        return self._served(self.engine)

    def _served(self, engine: EngineConfig) -> EngineConfig:
        if isinstance(engine, FlakyEngine | SlowEngine):
            return engine.model_copy(update={"engine": self._served(engine.engine)})
        if not isinstance(engine, VllmEngine):
            return engine
        replica = self.replica
        filled: dict[str, Any] = {}
        if 0 < replica.num_gpus < 1 and engine.gpu_memory_utilization is None:
            filled["gpu_memory_utilization"] = round(SHARE_OF_PART * replica.num_gpus, 3)
        if engine.workers > 1 and "distributed_executor_backend" not in engine.engine_args:
            # By itself vLLM would take Ray whenever it finds itself in a placement group.
            filled["distributed_executor_backend"] = "ray" if replica.span_nodes else "mp"
        return engine.model_copy(update=filled)
