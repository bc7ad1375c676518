"""Models for training: members, encoder and reward model, behind Serve handles or in this
process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from deployments.config.app_config import AppConfig
from deployments.launch.local_ray import models_application
from deployments.serving.names import encoder_deployment, member_deployment, reward_deployment
from runtime.calls.remote_engine import Channel
from runtime.encoders.client import EncoderChannel
from runtime.rewards.client import RewardChannel


class Backends(Protocol):
    def members(self, names: tuple[str, ...]) -> Mapping[str, Channel]: ...

    def encoder(self, name: str) -> EncoderChannel: ...

    def judge(self, name: str) -> RewardChannel: ...


class ServeBackends:
    """A running Serve application, from any process of its cluster."""

    def __init__(self, config: AppConfig) -> None:
        self._config = config

    def members(self, names: tuple[str, ...]) -> Mapping[str, Channel]:
        from deployments.handles.channels import ServeChannel
        from deployments.serving.replica_options import replicated

        configs = {name: self._config.members[name] for name in names}
        return {
            name: ServeChannel(name, self._handle(member_deployment(name)), replicated(member))
            for name, member in configs.items()
        }

    def encoder(self, name: str) -> EncoderChannel:
        from deployments.handles.channels import ServeEncoder

        return ServeEncoder(name, self._handle(encoder_deployment(name)))

    def judge(self, name: str) -> RewardChannel:
        from deployments.handles.channels import ServeRewards

        return ServeRewards(name, self._handle(reward_deployment(name)))

    def _handle(self, deployment: str):  # type: ignore[no-untyped-def]
        from ray import serve

        app = models_application(self._config, serve.status().applications)
        return serve.get_deployment_handle(deployment, app)


class InProcessBackends:
    """Models of this process, loaded on request; without Ray."""

    def __init__(self, config: AppConfig) -> None:
        self._config = config

    def members(self, names: tuple[str, ...]) -> Mapping[str, Channel]:
        from deployments.launch.in_process import LocalChannel
        from runtime.engines import build_engine

        configs = {name: self._config.members[name] for name in names}
        return {
            name: LocalChannel(build_engine(member.served_engine), name)
            for name, member in configs.items()
        }

    def encoder(self, name: str) -> EncoderChannel:
        from deployments.launch.in_process import LocalEncoder
        from runtime.encoders import build_encoder

        return LocalEncoder(build_encoder(self._config.encoders[name]))

    def judge(self, name: str) -> RewardChannel:
        from deployments.launch.in_process import LocalRewards
        from runtime.rewards import build_reward_model

        return LocalRewards(build_reward_model(self._config.reward_models[name]))
