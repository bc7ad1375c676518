"""Loads models with transformers; damaged or mismatched checkpoints are errors, not warnings.

Needs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from runtime.errors import ConfigError, EngineFault, WeightsError
from runtime.weights.checkpoint import SAFE

DAMAGED: Final = (
    OSError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip
"""What transformers raises for damaged checkpoint files."""
MAX_LISTED: Final = 4


def load_pretrained(
    auto: Any, folder: Path, weights: str, *, may_lack: Sequence[str] = (), **options: Any
) -> Any:
    """The model of ``folder``, loaded by an auto class of transformers.

    transformers fills missing tensors with random numbers; here they are an error, except for
    names that begin with one of ``may_lack``. No code of the checkpoint runs. Raises
    ``WeightsError``, ``ConfigError`` for an architecture that is code in its repository, and
    ``ValueError`` or ``ImportError`` for one that this class or version does not support.
    """
    try:
        model, loading_info = auto.from_pretrained(
            folder,
            **SAFE,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except DAMAGED as fault:
        raise WeightsError(
            f"{weights} is not a checkpoint that transformers can load ({fault}); see {folder}, "
            "and fetch it again or correct its config.json"
        ) from fault
    except ValueError as fault:
        if "trust_remote_code" in str(fault):
            raise ConfigError(
                f"{weights}: its architecture is code in its repository, which is never run; "
                "choose a checkpoint whose architecture transformers has itself"
            ) from fault
        raise
    wrong = sorted(loading_info.get("mismatched_keys") or ())
    if wrong:
        name, stored, expected = wrong[0]
        raise WeightsError(
            f"{weights}: {name} has shape {list(stored)} in {folder}, but config.json requires "
            f"{list(expected)}{_more(wrong)}; config and weights belong to different models, so "
            "fetch both again from one place"
        )
    missing = sorted(n for n in loading_info["missing_keys"] if not n.startswith(tuple(may_lack)))
    if missing:
        listed = ", ".join(missing[:MAX_LISTED]) + _more(missing, MAX_LISTED)
        raise WeightsError(
            f"{weights}: {folder} lacks {listed}, which config.json requires; fetch it "
            "again, or choose a checkpoint of this kind"
        )
    return model


def _more(items: Sequence[Any], shown: int = 1) -> str:
    return f" (and {len(items) - shown} more)" if len(items) > shown else ""


def pick_device(name: str) -> torch.device:
    """The device ``name``; "auto" is CUDA if available. Raises ``ConfigError``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as fault:
        raise ConfigError(f"device {name!r} is unknown to torch; use cpu or cuda") from fault
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: torch sees no GPU here; use device: cpu")
    return device


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a configuration's ``dtype``: "float32", else bfloat16."""
    return torch.float32 if name == "float32" else torch.bfloat16


def context_length(text_config: Any, *limits: int | None) -> int | None:
    """Tokens of the model's context, narrowed by ``limits``; ``None`` if none of them is set."""
    lengths = (getattr(text_config, "max_position_embeddings", None), *limits)
    return min((int(length) for length in lengths if length), default=None)


FORWARD_FAULTS = (
    RuntimeError,  # torch's own, including out of memory
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    MemoryError,
    EngineFault,
)
"""What a model's forward pass can raise; the calls of that pass fail, the engine stays up."""
