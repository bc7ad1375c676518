"""Wiring only: configuration -> Serve application."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.config import AppConfig
from deployments.coordinator import CoordinatorServer
from deployments.http.gateway import Ensemble, build_api
from deployments.metrics import RayMeter
from deployments.models import elsewhere, own
from deployments.names import ensemble_deployment, member_deployment
from deployments.replicas import DRAIN_S, replicated
from deployments.serve_channel import ServeChannel, ServeEnsemble
from deployments.wiring import alone

HEAD_NODE: Final = "node:__internal_head__"
"""A resource that Ray gives to the head node alone."""
UNBROKEN: Final = {
    "max_surge_percent": 100,
    "graceful_shutdown_timeout_s": 600.0,
    "graceful_shutdown_wait_loop_s": DRAIN_S,
}
"""Options of what takes nothing while it waits: when it is replaced, the new one starts first, and
the old one ends the answers that it has begun."""


def build_app(config: AppConfig | dict[str, Any]) -> serve.Application:
    """One deployment for each ensemble, and for each member unless ``models_app`` has them, and the
    gateway in front.

    ``serve run`` and ``serve deploy`` hand over the ``args`` of a Serve YAML as they are: Serve
    takes annotations as it finds them, and here they are strings.
    """
    config = AppConfig.model_validate(config)
    models = own(config) if config.models_app is None else elsewhere(config, config.models_app)
    coordinators = {
        name: serve.deployment(
            CoordinatorServer,
            name=ensemble_deployment(name),
            num_replicas=policy.replicas,
            max_ongoing_requests=1024,
            **UNBROKEN,
            ray_actor_options={"num_cpus": 0},
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
        )
        for name, policy in config.policy_configs().items()
    }
    gateway = serve.deployment(
        serve.ingress(_gateway(config))(),
        name="gateway",
        num_replicas=config.gateway.replicas,
        max_ongoing_requests=4096,
        **UNBROKEN,
        ray_actor_options={"num_cpus": 0, "resources": _place(config)},
    )
    behind = models.all if config.models_app is None else []
    return gateway.bind(*coordinators.values(), *behind)


def _place(config: AppConfig) -> dict[str, float]:
    return {HEAD_NODE: 0.001} if config.gateway.on_head else {}


def _gateway(config: AppConfig) -> Any:
    """A function that Serve runs on each gateway replica to build the HTTP application."""

    def build() -> FastAPI:
        app = serve.get_replica_context().app_name
        models_app = config.models_app or app
        models: dict[str, Ensemble] = {
            name: ServeEnsemble(name, DeploymentHandle(ensemble_deployment(name), app))
            for name in config.ensembles
        }
        channels = {
            name: ServeChannel(
                name, DeploymentHandle(member_deployment(name), models_app), replicated(member)
            )
            for name, member in config.members.items()
        }
        models |= alone(config.members, channels, config.trace, config.gateway.currency, RayMeter())
        return build_api(config.gateway, models, keep=config.trace.keep, request_ids=False)

    return build
