"""Loading a checkpoint folder with transformers: what is damaged, or does not belong together, is
told at once instead of being made up. Needs torch and transformers."""

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
"""What transformers raises for files that are there and hold something else than they should."""
MAX_LISTED: Final = 4


def load_pretrained(
    auto: Any, folder: Path, weights: str, *, may_lack: Sequence[str] = (), **options: Any
) -> Any:
    """The model that an auto class of transformers makes of ``folder``.

    transformers fills tensors that the files lack with random numbers; here that is an error,
    except for names that begin with one of ``may_lack``. No code of the checkpoint runs. Raises
    ``WeightsError``, ``ConfigError`` for an architecture that is code in its repository, and
    ``ValueError`` or ``ImportError`` for one that this class or this version does not know.
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
            f"{weights}: {name} has shape {list(stored)} in {folder} where config.json makes it "
            f"{list(expected)}{_more(wrong)}; config and weights belong to different models, so "
            "fetch both again from one place"
        )
    missing = sorted(n for n in loading_info["missing_keys"] if not n.startswith(tuple(may_lack)))
    if missing:
        raise WeightsError(
            f"{weights}: {folder} lacks {', '.join(missing[:MAX_LISTED])}{_more(missing, MAX_LISTED)}, which "
            "config.json asks for; fetch it again, or choose a checkpoint of this kind"
        )
    return model


def _more(items: Sequence[Any], shown: int = 1) -> str:
    return f" (and {len(items) - shown} more)" if len(items) > shown else ""


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as fault:
        raise ConfigError(f"device {name!r} is none that torch knows; use cpu or cuda") from fault
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: torch sees no GPU here; use device: cpu")
    return device


FORWARD_FAULTS = (
    RuntimeError,  # torch's own, out of memory among them
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    MemoryError,
    EngineFault,
)
"""What a model's code can raise; the calls of that pass fail, the loop lives on."""
