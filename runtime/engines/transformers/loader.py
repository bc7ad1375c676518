"""Loads a checkpoint with our attention function, and probes what it needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from runtime.config.engines import TransformersEngine
from runtime.engines.transformers.kv_cache import Shape
from runtime.engines.transformers.ragged_attention import NAME, Probe, planned
from runtime.engines.transformers.small_batch_linear import use_small_batch_linears
from runtime.errors import ConfigError, WeightsError
from runtime.tokenization.files import eos_ids
from runtime.weights.checkpoint import without_code
from runtime.weights.torch_models import (
    FORWARD_FAULTS,
    context_length,
    load_pretrained,
    pick_device,
    torch_dtype,
)

ATTENTION_KINDS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model for ragged forward passes."""

    model: Any
    shape: Shape
    window: int
    """Context length: prompt and new tokens together."""
    vocab_size: int
    hidden_size: int
    eos_ids: tuple[int, ...]
    """From the model's configuration files; the tokenizer may add more."""


def load(folder: Path, config: TransformersEngine) -> Checkpoint:
    """Raises ``WeightsError`` for a folder that cannot be read, ``ConfigError`` for a model that
    this engine cannot run or an unavailable device."""
    device = pick_device(config.device)
    dtype = torch_dtype(config.dtype)
    try:
        model = load_pretrained(
            AutoModelForCausalLM, folder, config.weights, dtype=dtype, attn_implementation=NAME
        )
    except (ValueError, ImportError) as fault:
        raise _refusal(config, without_code(fault)) from fault
    model.eval().requires_grad_(False).to(device)
    use_small_batch_linears(model)
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ATTENTION_KINDS)
    if kinds - ATTENTION_KINDS:
        raise _refusal(config, f"it has layers of kind {sorted(kinds - ATTENTION_KINDS)}")
    probe, vocab_size = _probe(model, device, config)
    ((heads, head_dim, _),) = probe.shapes
    return Checkpoint(
        model=model,
        shape=Shape(len(probe.layers), heads, head_dim, dtype, device),
        window=window_of(text, config),
        vocab_size=min(vocab_size, model.get_input_embeddings().num_embeddings),
        hidden_size=int(text.hidden_size),
        eos_ids=eos_ids(folder, text),
    )


def window_of(text: Any, config: TransformersEngine) -> int:
    """The model's context length, limited by ``max_context``, and by the original length where
    rotary scaling depends on the text's length, which would differ within a batch."""
    rope = getattr(text, "rope_parameters", None) or {}
    longrope = rope.get("rope_type") == "longrope"
    original = rope.get("original_max_position_embeddings") if longrope else None
    length = context_length(text, config.max_context, original)
    if length is None:
        raise ConfigError(f"{config.weights} does not define its context length; set max_context")
    return length


def _probe(model: Any, device: torch.device, config: TransformersEngine) -> tuple[Probe, int]:
    """Runs two tokens to check that every layer uses our attention function, in one shape."""
    probe = Probe()
    try:
        with torch.inference_mode(), planned(probe):
            logits = model(
                input_ids=torch.zeros((1, 2), dtype=torch.long, device=device),
                position_ids=torch.arange(2, device=device)[None],
                use_cache=False,
                logits_to_keep=torch.ones(1, dtype=torch.long, device=device),
            ).logits
    except (*FORWARD_FAULTS, ConfigError) as fault:
        raise _refusal(config, str(fault)) from fault
    text = model.config.get_text_config()
    if probe.layers != list(range(text.num_hidden_layers)) or logits.shape[1] != 1:
        raise _refusal(config, "not all its layers use transformers' attention interface")
    if len(probe.shapes) != 1 or any(key != value for _, key, value in probe.shapes):
        raise _refusal(config, "its layers' keys and values have different shapes")
    for layer, kind in enumerate(getattr(text, "layer_types", None) or ()):
        if kind == "sliding_attention" and probe.windows[layer] is None:
            raise _refusal(config, f"layer {layer} does not pass its sliding window")
    if model.base_model is model:
        raise _refusal(config, "its last hidden state cannot be separated from its logits")
    if bool(logits.isnan().any()):
        raise WeightsError(
            f"{config.weights} computes NaN from its first token on: the weights are damaged, so "
            "fetch them again, or dtype is too narrow, so try float32"
        )
    return probe, logits.shape[-1]


def _refusal(config: TransformersEngine, reason: str) -> ConfigError:
    return ConfigError(
        f"the transformers engine cannot run {config.weights}: {reason}; serve it with vLLM"
    )
