"""The models of an application: its own deployments, or those of another application.

Serve restarts all deployments of an application whose ``args`` change. Models in a separate
application therefore stay up while ensembles change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.config.app_config import AppConfig
from deployments.serving.encoder import EncoderServer
from deployments.serving.member import MemberServer
from deployments.serving.names import encoder_deployment, member_deployment, reward_deployment
from deployments.serving.replica_options import DRAIN_S, member_options
from deployments.serving.reward import RewardServer


@dataclass(frozen=True)
class Models:
    """Models by name: bound deployments or handles, which Serve both turns into handles."""

    members: Mapping[str, Any]
    judges: Mapping[str, Any]
    encoders: Mapping[str, Any]

    @property
    def all(self) -> list[Any]:
        return [*self.members.values(), *self.judges.values(), *self.encoders.values()]


def local_models(config: AppConfig) -> Models:
    """A new deployment for each model."""
    return Models(
        members={
            name: serve.deployment(
                MemberServer, name=member_deployment(name), **member_options(member)
            ).bind(name, member, config.tracing)
            for name, member in config.members.items()
        },
        judges={
            name: serve.deployment(
                RewardServer, name=reward_deployment(name), **member_options(judge.as_member())
            ).bind(name, judge)
            for name, judge in config.reward_models.items()
        },
        encoders={
            name: serve.deployment(
                EncoderServer, name=encoder_deployment(name), **member_options(encoder.as_member())
            ).bind(name, encoder)
            for name, encoder in config.encoders.items()
        },
    )


def remote_models(config: AppConfig, app: str) -> Models:
    """Handles to the deployments of application ``app``, which may start later."""

    def handle(deployment: str) -> DeploymentHandle:
        return DeploymentHandle(deployment, app)

    return Models(
        members={name: handle(member_deployment(name)) for name in config.members},
        judges={name: handle(reward_deployment(name)) for name in config.reward_models},
        encoders={name: handle(encoder_deployment(name)) for name in config.encoders},
    )


def build_models(config: AppConfig | dict[str, Any]) -> serve.Application:
    """A Serve application with models only, which another one names as its ``models_app``.
    ``config`` may be a dictionary, as for ``deployments.app.build_app``."""
    config = AppConfig.model_validate(config)
    root = serve.deployment(
        Root,
        name="models",
        graceful_shutdown_wait_loop_s=DRAIN_S,
        ray_actor_options={"num_cpus": 0},
    )
    return root.bind(*local_models(config).all)


class Root:
    """The ingress of an application of models; it serves no requests."""

    def __init__(self, *models: DeploymentHandle) -> None:
        self.models = models
