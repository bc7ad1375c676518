"""One ensemble as a Serve deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles.channels import ServeChannel, ServeEncoder, ServeRewards
from deployments.serving.event_batches import event_batches
from deployments.serving.ray_metrics import RayMeter
from deployments.serving.replica_logging import observe
from deployments.serving.replica_options import replicated
from deployments.wiring import build_coordinator
from runtime.config.aux_models import EncoderConfig
from runtime.config.ensembles import PolicyConfig
from runtime.config.gateway import TraceConfig
from runtime.config.members import MemberConfig
from runtime.config.reward_models import RewardModelConfig
from runtime.config.tracing import TracingConfig
from runtime.encoders.client import EncoderConnection
from runtime.observability.tracing import stop_recording
from runtime.rewards.client import RewardConnection
from runtime.session.aux_models import AuxModels
from runtime.types.events import Checkpoint, Event, sharing_checkpoint
from runtime.types.query import Query


class CoordinatorServer:
    """A replica of one ensemble's coordinator; serves many requests at once."""

    def __init__(
        self,
        name: str,
        config: PolicyConfig,
        members: Mapping[str, MemberConfig],
        traces: TraceConfig,
        currency: str,
        handles: Mapping[str, DeploymentHandle],
        reward: tuple[RewardModelConfig, DeploymentHandle] | None = None,
        encoder: tuple[EncoderConfig, DeploymentHandle] | None = None,
        tracing: TracingConfig | None = None,
    ) -> None:
        observe(f"ensemble {name}", tracing)
        channels = {
            member: ServeChannel(member, handle, replicated(members[member]))
            for member, handle in handles.items()
        }
        self.meter = RayMeter()
        judge = own_encoder = None
        if config.judge is not None and reward is not None:
            rewards = ServeRewards(config.judge, reward[1])
            judge = RewardConnection(config.judge, reward[0], rewards)
        if config.encoder_name is not None and encoder is not None:
            vectors = ServeEncoder(config.encoder_name, encoder[1])
            own_encoder = EncoderConnection(config.encoder_name, encoder[0], vectors)
        self.coordinator = build_coordinator(
            name,
            config,
            members,
            channels,
            traces,
            currency,
            self.meter,
            AuxModels(judge, own_encoder),
        )

    async def answer(
        self, query: Query, checkpoint: Checkpoint | None = None
    ) -> AsyncIterator[list[Event]]:
        """Events in batches; the last checkpoint of a batch stands for all of it."""
        async with aclosing(event_batches(self.coordinator.answer(query, checkpoint))) as batches:
            async for events in batches:
                yield sharing_checkpoint(events)

    async def card(self) -> dict[str, Any]:
        return await self.coordinator.card()

    async def decode(self, ids: Sequence[int]) -> str:
        return await self.coordinator.decode(ids)

    async def stats(self) -> dict[str, int]:
        return self.coordinator.stats()

    def __del__(self) -> None:
        """Serve calls this when it stops the replica."""
        if hasattr(self, "coordinator"):
            self.coordinator.close()
            self.meter.flush()
        stop_recording()
