"""One LLM as a Serve deployment: an engine and the messages it answers."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil
from ray import serve

from deployments.serving.ray_metrics import RayMeter, label, vllm_loggers
from deployments.serving.replica_logging import observe
from deployments.serving.replica_options import CALLS
from runtime.calls.messages import Call, CallRunner, Outcome
from runtime.config.members import MemberConfig
from runtime.config.tracing import TracingConfig
from runtime.engines import EngineSpec, build_engine
from runtime.observability.recorder import LoadRecorder
from runtime.observability.tracing import stop_recording


class MemberServer:
    """A replica of one member."""

    def __init__(
        self, name: str, config: MemberConfig, tracing: TracingConfig | None = None
    ) -> None:
        self.name = name
        observe(f"member {name}", tracing)
        self._replica = serve.get_replica_context().replica_id.unique_id
        started = time.monotonic()
        self.engine = build_engine(config.served_engine, label(name), vllm_loggers)
        self._startup_s = time.monotonic() - started
        self.runner = CallRunner(self.engine, name)
        self.load = LoadRecorder(name, RayMeter())

    async def describe(self) -> EngineSpec:
        return self.engine.spec

    async def calls(self, calls: Sequence[Call]) -> tuple[str, list[Outcome]]:
        """Runs the calls of one message (see ``runtime.calls.remote_engine``). Returns the id of
        this replica and the outcomes."""
        with self.load.message(len(calls)):
            return self._replica, await self.runner.run(calls)

    async def abort(self, ids: Sequence[str]) -> None:
        self.runner.abort(ids)

    async def footprint(self) -> dict[str, float]:
        """Seconds until the engine was up, and memory of this replica and its engine's processes in
        MiB: ``rss_mb`` counts shared pages once for each process, ``pss_mb`` once in all."""
        own = psutil.Process()
        memory = [process.memory_full_info() for process in (own, *own.children(recursive=True))]
        return {
            "startup_s": self._startup_s,
            "rss_mb": sum(info.rss for info in memory) / 2**20,
            "pss_mb": sum(info.pss for info in memory) / 2**20,
        }

    def record_autoscaling_stats(self) -> dict[str, float]:
        """The metric of ``CallsPerReplica`` (replica_options.py); Serve collects it."""
        return {CALLS: float(self.runner.running)}

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.check()

    async def __del__(self) -> None:
        """Serve awaits this when it stops the replica."""
        if hasattr(self, "engine"):
            await self.engine.close()
        stop_recording()
