"""The runtime's part of the document; ``deployments/config/app_config.py`` adds the methods."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from runtime.config.base import Strict
from runtime.config.evaluation import EvaluationConfig
from runtime.config.gateway import GatewayConfig, TraceConfig
from runtime.config.members import MemberConfig
from runtime.config.tracing import TracingConfig


class RuntimeConfig(Strict):
    """One document: members, ensembles, and how they are served."""

    members: dict[str, MemberConfig] = Field(min_length=1)
    ensembles: dict[str, Any] = {}
    gateway: GatewayConfig = GatewayConfig()
    trace: TraceConfig = TraceConfig()
    tracing: TracingConfig | None = None
    """OpenTelemetry; absent: none."""
    evaluation: EvaluationConfig | None = None
