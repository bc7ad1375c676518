"""Builds coordinators from a configuration, for engines in this process or behind Serve."""

from __future__ import annotations

from collections.abc import Mapping

from policies import build_policy
from policies.single import SingleConfig
from runtime.calls.remote_engine import Channel, RemoteEngine
from runtime.config.ensembles import PolicyConfig
from runtime.config.gateway import TraceConfig
from runtime.config.members import MemberConfig
from runtime.coordinator.coordinator import Coordinator
from runtime.coordinator.trace_log import TraceLog
from runtime.observability.metrics import Meter
from runtime.session.aux_models import ALONE, AuxModels
from runtime.session.connection import Connection


def connect(
    members: Mapping[str, MemberConfig], channels: Mapping[str, Channel], *, coalesce: bool = True
) -> dict[str, Connection]:
    """A connection to each member over its channel."""
    return {
        name: Connection(name, config, RemoteEngine(channels[name], coalesce))
        for name, config in members.items()
    }


def build_coordinator(
    name: str,
    config: PolicyConfig,
    members: Mapping[str, MemberConfig],
    channels: Mapping[str, Channel],
    traces: TraceConfig,
    currency: str,
    meter: Meter,
    aux_models: AuxModels = ALONE,
) -> Coordinator:
    """The coordinator of one ensemble, with its own connections and trace log."""
    used = {member: members[member] for member in config.members}
    connections = connect(used, channels, coalesce=config.coalesce)
    return Coordinator(
        name,
        build_policy(config),
        connections,
        TraceLog(traces),
        currency=currency,
        meter=meter,
        aux_models=aux_models,
    )


def member_coordinators(
    members: Mapping[str, MemberConfig],
    channels: Mapping[str, Channel],
    traces: TraceConfig,
    currency: str,
    meter: Meter,
) -> dict[str, Coordinator]:
    """A coordinator for each member alone: every member is also a model of the endpoint."""
    connections = connect(members, channels)
    log = TraceLog(traces)
    return {
        name: Coordinator(
            name,
            build_policy(SingleConfig(members=(name,))),
            connections,
            log,
            kind="member",
            currency=currency,
            meter=meter,
        )
        for name in members
    }
