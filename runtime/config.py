"""The configuration of members, engines and limits.

Light: imports neither torch nor ray. Unknown keys are refused. The methods' own configurations live
beside them in ``policies``; ``deployments/config.py`` joins both into one document.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from runtime.engine_config import (
    EchoEngine,
    EngineConfig,
    FlakyEngine,
    SlowEngine,
    Strict,
    TableEngine,
    TransformersEngine,
    VllmEngine,
)
from runtime.types import Budget

__all__ = [
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
    "TransformersEngine",
    "VllmEngine",
]


class Price(Strict):
    """Per million tokens, in the configured currency."""

    input: float = Field(0.0, ge=0)
    cached_input: float | None = Field(None, ge=0)
    """Tokens served from the prefix cache; absent: the same as ``input``."""
    output: float = Field(0.0, ge=0)


class ReplicaConfig(Strict):
    """What one replica of a member takes and how many there are."""

    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    resources: dict[str, float] = {}
    num_replicas: int = Field(1, ge=1)
    max_ongoing_requests: int = Field(64, ge=1)
    """Messages (each may carry many calls) at one replica at a time."""
    max_queued_requests: int = Field(1024, ge=1)


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
    """False keeps prompts and answers out of the Parquet trace."""


class GatewayConfig(Strict):
    """The HTTP face."""

    max_n: int = Field(8, ge=1)
    """Most choices in one request."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    keep_alive_s: float = Field(10.0, gt=0)
    """A comment line is sent on a silent stream this often."""
    replicas: int = Field(1, ge=1)
    currency: str = "USD"


class EvaluationConfig(Strict):
    """What ``orchestrion eval`` asks when the command line does not say."""

    questions: str
    """A JSONL file with ``question`` and ``answer``, relative to the working folder."""
    limit: int | None = Field(None, ge=1)
    """The first so many questions; absent: all."""
    max_tokens: int = Field(64, ge=1)
    answer_pattern: str = r"Answer:\s*(.+?)\s*$"
    """A regular expression whose first group, in its last match, is the answer that was given."""
    concurrency: int = Field(16, ge=1)
    experts: dict[str, str] = {}
    """Relation -> the member that knows it; then the share of facts by their expert is told."""
    models: tuple[str, ...] | None = None
    """Models to compare; absent: every ensemble and every member alone."""

    @field_validator("answer_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        import re

        try:
            compiled = re.compile(pattern)
        except re.error as fault:
            raise ValueError(f"answer_pattern is not a regular expression: {fault}") from None
        if compiled.groups < 1:
            raise ValueError("answer_pattern needs a (group) around the answer")
        return pattern


class RuntimeConfig(Strict):
    """One document: members, ensembles, and how they are served."""

    members: dict[str, MemberConfig] = Field(min_length=1)
    ensembles: dict[str, Any] = {}
    gateway: GatewayConfig = GatewayConfig()
    trace: TraceConfig = TraceConfig()
    evaluation: EvaluationConfig | None = None
