"""The configuration of members, engines and limits.

Light: imports neither torch nor ray. Unknown keys are refused. The methods' own configurations live
beside them in ``policies``; ``deployments/config.py`` joins both into one document.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field, model_validator

from runtime.access_config import AccessConfig
from runtime.engine_config import (
    EchoEngine,
    EngineConfig,
    FlakyEngine,
    SlowEngine,
    Strict,
    TableEngine,
    TransformersEngine,
    VllmEngine,
    innermost,
)
from runtime.evaluation_config import EvaluationConfig
from runtime.tracing_config import TracingConfig
from runtime.types import Budget

__all__ = [
    "AccessConfig",
    "AutoscalingConfig",
    "BudgetConfig",
    "EchoEngine",
    "EngineConfig",
    "EvaluationConfig",
    "FlakyEngine",
    "GatewayConfig",
    "MemberConfig",
    "PolicyConfig",
    "Price",
    "ReplicaConfig",
    "RuntimeConfig",
    "SlowEngine",
    "Strict",
    "TableEngine",
    "TraceConfig",
    "TracingConfig",
    "TransformersEngine",
    "VllmEngine",
    "innermost",
]


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
    """How many replicas a member has, by what it is asked."""

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


class BudgetConfig(Strict):
    """Limits of one request; a request may only narrow them."""

    calls: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    cost: float | None = Field(None, ge=0)
    seconds: float | None = Field(None, gt=0)

    def budget(self) -> Budget:
        return Budget(self.calls, self.tokens, self.cost, self.seconds)


class PolicyConfig(Strict):
    """What every ensemble has, whatever its method. Methods add their own fields."""

    type: str
    members: tuple[str, ...] = Field(min_length=1)
    """Member names; their order breaks ties."""
    quorum: int = Field(1, ge=1)
    """Fewer members than this end the answer with an error."""
    reporting_member: str | None = None
    """Whose tokenizer counts the tokens a caller sees; absent: the first member."""
    max_tokens: int = Field(512, ge=1)
    """Visible tokens when the request names no limit."""
    budget: BudgetConfig = BudgetConfig()
    replicas: int = Field(1, ge=1)
    """Coordinator replicas."""
    coalesce: bool = True
    """Calls that leave the coordinator for one member in one loop tick travel as one message."""

    @property
    def method(self) -> str:
        """What answers and traces call the method: ``type``, with what makes it another one."""
        return self.type

    @property
    def takes_threshold(self) -> bool:
        """Whether a request may name a threshold of its own."""
        return False

    @property
    def judge(self) -> str | None:
        """The reward model that the method asks, if it asks one."""
        return None

    @property
    def encoded_by(self) -> str | None:
        """The text encoder that the method asks, if it asks one: a name under ``encoders``, or a
        member of its own."""
        return None

    @model_validator(mode="after")
    def _names_agree(self) -> PolicyConfig:
        if len(set(self.members)) != len(self.members):
            raise ValueError(
                f"members {list(self.members)} names one member twice; to weigh a member more, "
                "use the method's weights"
            )
        if self.reporting_member is not None and self.reporting_member not in self.members:
            raise ValueError(
                f"reporting_member {self.reporting_member!r} is not among members "
                f"{list(self.members)}"
            )
        if self.quorum > len(self.members):
            raise ValueError(
                f"quorum {self.quorum} is more than the {len(self.members)} members; lower it"
            )
        return self


class TraceConfig(Strict):
    """Where finished requests are recorded."""

    folder: str | None = None
    """Parquet files are appended here; absent: traces stay in the gateway's memory only."""
    keep: int = Field(1000, ge=0)
    """Finished traces that GET /v1/traces/{id} can still show."""
    store_text: bool = True
    """False keeps prompts and answers out of the Parquet trace, and out of what
    GET /v1/traces/{id} shows of a full trace."""


class GatewayConfig(Strict):
    """The HTTP face."""

    max_n: int = Field(8, ge=1)
    """Most choices in one request."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    max_answers: int = Field(256, ge=1)
    """Answers that one gateway replica writes at a time; requests beyond get 429 at once."""
    body_timeout_s: float = Field(60.0, gt=0)
    """A request's body must have come by then."""
    keep_alive_s: float = Field(10.0, gt=0)
    """A comment line is sent on a silent stream this often."""
    replicas: int = Field(1, ge=1)
    """Gateway processes. Each grants its part of a key's limits."""
    on_head: bool = True
    """On a cluster the gateway stays on the head node, without which there is no cluster: then no
    other node's death breaks a stream. False lets its replicas go anywhere."""
    currency: str = "USD"
    access: AccessConfig = AccessConfig()
    allow_origins: tuple[str, ...] = ()
    """Web pages that may use the endpoint from a browser, as ``https://chat.example``; ``"*"`` is
    every page there is."""


class RuntimeConfig(Strict):
    """One document: members, ensembles, and how they are served."""

    members: dict[str, MemberConfig] = Field(min_length=1)
    ensembles: dict[str, Any] = {}
    gateway: GatewayConfig = GatewayConfig()
    trace: TraceConfig = TraceConfig()
    tracing: TracingConfig | None = None
    """OpenTelemetry; absent: none."""
    evaluation: EvaluationConfig | None = None
