"""Builds the Serve application of a configuration."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.config.app_config import AppConfig
from deployments.handles.channels import ServeChannel
from deployments.handles.ensemble import ServeEnsemble
from deployments.http.answerer import Ensemble
from deployments.http.gateway import build_api
from deployments.models import local_models, remote_models
from deployments.serving.bind_address import refuse_exposed_replica
from deployments.serving.coordinator import CoordinatorServer
from deployments.serving.names import ensemble_deployment, member_deployment
from deployments.serving.ray_metrics import RayMeter
from deployments.serving.replica_logging import observe
from deployments.serving.replica_options import coordinator_options, gateway_options, replicated
from deployments.wiring import member_coordinators


def build_app(config: AppConfig | dict[str, Any]) -> serve.Application:
    """The Serve application: the gateway, a deployment for each ensemble, and one for each model
    unless ``models_app`` has them. Raises ``ConfigError`` for an invalid configuration.

    ``serve run`` and ``serve deploy`` pass the ``args`` of a Serve YAML as a dictionary, since
    Serve does not resolve string annotations."""
    config = AppConfig.model_validate(config)
    models = (
        local_models(config)
        if config.models_app is None
        else remote_models(config, config.models_app)
    )
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
            {member: models.members[member] for member in policy.members},
            (config.reward_models[policy.judge], models.judges[policy.judge])
            if policy.judge
            else None,
            (config.encoders[encoder], models.encoders[encoder])
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
    behind = models.all if config.models_app is None else []
    return gateway.bind(*coordinators.values(), *behind)


def _gateway(config: AppConfig) -> Any:
    """A function that Serve calls in each gateway replica to build the HTTP application."""

    def build() -> FastAPI:
        refuse_exposed_replica(config.gateway.access)
        app = serve.get_replica_context().app_name
        observe("gateway", config.tracing)
        models_app, meter = config.models_app or app, RayMeter()
        models: dict[str, Ensemble] = {
            name: ServeEnsemble(
                name,
                DeploymentHandle(ensemble_deployment(name), app),
                meter,
                policy.replicas > 1,
            )
            for name, policy in config.policy_configs().items()
        }
        channels = {
            name: ServeChannel(
                name, DeploymentHandle(member_deployment(name), models_app), replicated(member)
            )
            for name, member in config.members.items()
        }
        models |= member_coordinators(
            config.members, channels, config.trace, config.gateway.currency, meter
        )
        return build_api(
            config.gateway,
            models,
            keep=config.trace.keep,
            store_text=config.trace.store_text,
            request_ids=False,
            meter=meter,
        )

    return build
