"""How much memory one replica of a member takes: an estimate from sizes that are known.

The activations of a forward pass come on top; they depend on the requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from deployments.doctor import vllm_build
from deployments.doctor.facts import Installed, Machine
from runtime.config.engine_base import PluginEngine
from runtime.config.engines import (
    EngineConfig,
    FlakyEngine,
    SlowEngine,
    TransformersEngine,
    VllmEngine,
)
from runtime.config.members import SHARE_OF_PART
from runtime.engines.vllm.launch import CPU_KV_BYTES, VLLM_SHARE
from runtime.weights.size import Size

# Proportional set sizes of running replicas of the zoo's models, whose weights take 2 MB, with ray
# 2.60, torch 2.13 and vLLM 0.32 on a CPU.
MIB = 2**20
TRANSFORMERS_BYTES = 400 * MIB
VLLM_BYTES = 1500 * MIB
"""The replica and vLLM's engine core, which holds the first worker."""
VLLM_WORKER_BYTES = 600 * MIB
"""Each further worker."""
SCRIPTED_BYTES = COORDINATOR_BYTES = 130 * MIB
RAY_BYTES = 900 * MIB
"""Ray's and Serve's own processes, the gateway and the command itself."""


@dataclass(frozen=True)
class Demand:
    """Bytes of one replica, and where weights and cache lie."""

    processes: int
    weights: int | None = 0
    """``None``: not known, since they are not on this machine."""
    cache: int = 0
    gpus: int = 0
    """Cards that weights and cache lie on; 0: they lie in RAM."""
    share: float | None = None
    """Part of each card that vLLM takes for everything, whatever the weights."""

    @property
    def held(self) -> int:
        """Weights and cache, as far as they are known."""
        return (self.weights or 0) + self.cache

    @property
    def ram(self) -> int:
        return self.processes + (0 if self.gpus else self.held)

    def on_cards(self, card: int) -> int:
        """Bytes on all its cards, of so many bytes each."""
        if not self.gpus:
            return 0
        return self.held if self.share is None else int(self.share * card * self.gpus)


def demand(
    engine: EngineConfig, size: Size | None, num_gpus: float, installed: Installed, machine: Machine
) -> Demand:
    match engine:
        case TransformersEngine():
            return _transformers(engine, size, installed, machine)
        case VllmEngine():
            return _vllm(engine, size, num_gpus, on_gpu(engine, installed, machine))
        case FlakyEngine() | SlowEngine():
            return demand(engine.engine, size, num_gpus, installed, machine)
        case PluginEngine():
            return Demand(SCRIPTED_BYTES, weights=None)
    return Demand(SCRIPTED_BYTES)


def on_gpu(engine: TransformersEngine | VllmEngine, installed: Installed, machine: Machine) -> bool:
    """Whether weights go to a GPU; without vLLM, as with the build that would be installed."""
    if isinstance(engine, TransformersEngine):
        wants = engine.device if engine.device != "auto" else "cuda" if machine.gpus else "cpu"
        return wants.startswith("cuda") and installed.torch_build != "cpu"
    builds = vllm_build.builds(installed)
    return builds == {vllm_build.GPU} or (not builds and bool(machine.gpus))


def _transformers(
    engine: TransformersEngine, size: Size | None, installed: Installed, machine: Machine
) -> Demand:
    width = 4 if engine.dtype == "float32" else 2
    return Demand(
        processes=TRANSFORMERS_BYTES,
        weights=None if size is None else size.at(width),
        cache=(engine.cache_mb + engine.rows_mb) * MIB,
        gpus=1 if on_gpu(engine, installed, machine) else 0,
    )


def _vllm(engine: VllmEngine, size: Size | None, num_gpus: float, gpu: bool) -> Demand:
    # With "auto", vLLM serves float32 checkpoints in 16 bits too.
    width = 4 if engine.dtype == "float32" else 2
    own_cache = engine.kv_cache_memory_bytes
    part = SHARE_OF_PART * num_gpus if 0 < num_gpus < 1 else VLLM_SHARE
    share = engine.gpu_memory_utilization or part
    writing = Demand(
        processes=VLLM_BYTES + (engine.workers - 1) * VLLM_WORKER_BYTES,
        weights=None if size is None else size.at(width),
        cache=engine.workers * (own_cache or (0 if gpu else CPU_KV_BYTES)),
        gpus=engine.workers if gpu else 0,
        share=share if gpu and own_cache is None else None,
    )
    return _with_embedding(engine, size, width, writing)


def _with_embedding(engine: VllmEngine, size: Size | None, width: int, writing: Demand) -> Demand:
    """Adds the model that serves ``embed``."""
    if engine.embedding == "none":
        return writing
    weights = None if size is None else 2 * size.at(width)
    if engine.embedding == "pooling":
        return replace(
            writing,
            processes=2 * writing.processes,
            weights=weights,
            cache=2 * writing.cache,
        )
    cache = TransformersEngine.model_fields["cache_mb"].default * MIB
    return replace(writing, weights=weights, cache=writing.cache + cache)
