"""Wiring only: configuration -> Serve application."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve

from deployments.config import AppConfig
from deployments.coordinator import CoordinatorServer
from deployments.encoder import EncoderServer
from deployments.http.gateway import Ensemble, build_api
from deployments.listening import refuse_exposed_replica
from deployments.member import MemberServer
from deployments.metrics import RayMeter
from deployments.names import (
    encoder_deployment,
    ensemble_deployment,
    member_deployment,
    reward_deployment,
)
from deployments.observing import observe
from deployments.replicas import (
    coordinator_options,
    gateway_options,
    member_options,
    replicated,
)
from deployments.reward import RewardServer
from deployments.serve_channel import ServeChannel, ServeEnsemble
from deployments.wiring import alone


def build_app(config: AppConfig) -> serve.Application:
    """One deployment for each member and each ensemble, and the gateway in front.

    ``serve run deployments.app:build_app`` and Serve YAML validate ``args`` into the config.
    """
    members = {
        name: serve.deployment(
            MemberServer, name=member_deployment(name), **member_options(member)
        ).bind(name, member, config.tracing)
        for name, member in config.members.items()
    }
    judges = {
        name: serve.deployment(
            RewardServer, name=reward_deployment(name), **member_options(judge.as_member())
        ).bind(name, judge)
        for name, judge in config.reward_models.items()
    }
    encoders = {
        name: serve.deployment(
            EncoderServer, name=encoder_deployment(name), **member_options(encoder.as_member())
        ).bind(name, encoder)
        for name, encoder in config.encoders.items()
    }
    coordinators = {
        name: serve.deployment(
            CoordinatorServer,
            name=ensemble_deployment(name),
            **coordinator_options(policy.replicas, config.gateway),
        ).bind(
            name,
            policy,
            {member: config.members[member] for member in policy.members},
            config.trace,
            config.gateway.currency,
            {member: members[member] for member in policy.members},
            (config.reward_models[policy.judge], judges[policy.judge]) if policy.judge else None,
            (config.encoders[encoder], encoders[encoder])
            if (encoder := config.own_encoder(policy)) is not None
            else None,
            config.tracing,
        )
        for name, policy in config.policy_configs().items()
    }
    gateway = serve.deployment(
        serve.ingress(_gateway(config))(),
        name="gateway",
        **gateway_options(config.gateway),
    )
    behind = (coordinators, members, judges, encoders)
    return gateway.bind(*(bound for kind in behind for bound in kind.values()))


def _gateway(config: AppConfig) -> Any:
    """A function that Serve runs on each gateway replica to build the HTTP application."""

    def build() -> FastAPI:
        refuse_exposed_replica(config.gateway.access)
        app = serve.get_replica_context().app_name
        observe("gateway", config.tracing)

        def handle(deployment: str) -> Any:
            return serve.get_deployment_handle(deployment, app)

        meter = RayMeter()
        models: dict[str, Ensemble] = {
            name: ServeEnsemble(name, handle(ensemble_deployment(name)), meter, policy.replicas > 1)
            for name, policy in config.policy_configs().items()
        }
        channels = {
            name: ServeChannel(name, handle(member_deployment(name)), replicated(member))
            for name, member in config.members.items()
        }
        models |= alone(config.members, channels, config.trace, config.gateway.currency, meter)
        return build_api(
            config.gateway,
            models,
            keep=config.trace.keep,
            store_text=config.trace.store_text,
            request_ids=False,
            meter=meter,
        )

    return build
