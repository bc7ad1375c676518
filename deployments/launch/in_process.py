"""The whole server in one process, without Ray: for tests, notebooks and small models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
from fastapi import FastAPI

from deployments.config.app_config import AppConfig
from deployments.http.gateway import build_api
from deployments.serving.replica_logging import trace
from deployments.wiring import build_coordinator, member_coordinators
from runtime.call_context import CallContext
from runtime.calls.messages import Call, CallRunner, Outcome
from runtime.config.ensembles import PolicyConfig
from runtime.coordinator.coordinator import Coordinator
from runtime.encoders import TextEncoder, build_encoder
from runtime.encoders.client import EncoderConnection
from runtime.engines import Engine, EngineSpec, build_engine
from runtime.observability.metrics import Counts
from runtime.observability.tracing import stop_recording
from runtime.rewards import Judged, Reasoning, RewardModel, build_reward_model, judge_all
from runtime.rewards.client import RewardConnection
from runtime.session.aux_models import AuxModels


class LocalChannel:
    """Messages to an engine in this process."""

    def __init__(self, engine: Engine, member: str = "") -> None:
        self.engine = engine
        self.runner = CallRunner(engine, member)

    async def describe(self) -> EngineSpec:
        await self.engine.check()
        return self.engine.spec

    def place(self, call_context: CallContext) -> str:
        return ""

    async def send(self, calls: Sequence[Call]) -> list[Outcome]:
        return await self.runner.run(calls)

    async def abort(self, call: Call) -> None:
        self.runner.abort([call.id])


class LocalRewards:
    """Chains of steps to a reward model in this process."""

    def __init__(self, model: RewardModel) -> None:
        self._model = model

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[Judged]:
        return await judge_all(self._model, chains)


class LocalEncoder:
    """Texts to an encoder in this process."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        return await asyncio.to_thread(self._encoder.encode, texts)


class LocalStack:
    """Engines, coordinators and the HTTP application of a configuration.

    ``engines`` are existing engines by member name; the caller closes them.
    """

    def __init__(self, config: AppConfig, engines: Mapping[str, Engine] | None = None) -> None:
        self.config = config
        if config.tracing is not None:
            trace(config.tracing, "local")
        self.counts = Counts()
        self._own = {
            name: build_engine(member.served_engine)
            for name, member in config.members.items()
            if name not in (engines or {})
        }
        self.engines = {
            name: self._own.get(name) or (engines or {})[name] for name in config.members
        }
        channels = {name: LocalChannel(engine, name) for name, engine in self.engines.items()}
        self.reward_models = {
            name: build_reward_model(judge) for name, judge in config.reward_models.items()
        }
        self.encoders = {name: build_encoder(encoder) for name, encoder in config.encoders.items()}
        shared = (config.trace, config.gateway.currency, self.counts)
        self.models: dict[str, Coordinator] = {
            name: build_coordinator(
                name, policy, config.members, channels, *shared, self._aux_models(policy)
            )
            for name, policy in config.policy_configs().items()
        }
        self.models |= member_coordinators(config.members, channels, *shared)

    def _aux_models(self, policy: PolicyConfig) -> AuxModels:
        judge = encoder = None
        if policy.judge is not None:
            rewards = LocalRewards(self.reward_models[policy.judge])
            judged_by = self.config.reward_models[policy.judge]
            judge = RewardConnection(policy.judge, judged_by, rewards)
        if (own := self.config.own_encoder(policy)) is not None:
            vectors = LocalEncoder(self.encoders[own])
            encoder = EncoderConnection(own, self.config.encoders[own], vectors)
        return AuxModels(judge, encoder)

    def api(self) -> FastAPI:
        trace = self.config.trace
        return build_api(
            self.config.gateway,
            self.models,
            keep=trace.keep,
            store_text=trace.store_text,
            meter=self.counts,
        )

    async def close(self) -> None:
        """Writes the traces and stops the engines."""
        for model in self.models.values():
            model.close()
        for engine in self._own.values():
            await engine.close()
        for judge in self.reward_models.values():
            await judge.close()
        if self.config.tracing is not None:
            stop_recording()
