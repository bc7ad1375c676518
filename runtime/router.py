"""A trained token router: reads a model's state, tells whether that model may write the next token.

Numpy, safetensors and JSON only: what serves it knows nothing of what trained it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from runtime.errors import ConfigError

FORMAT: Final = "orchestrion-router-1"
WEIGHTS, ABOUT = "router.safetensors", "router.json"

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass(frozen=True, eq=False)
class Router:
    """A multilayer perceptron over a last-layer state: ReLU between layers, a logit at the end
    whose sigmoid is the probability that the model's own token is good enough."""

    layers: Layers
    """float32 weights ``[out, in]`` and biases ``[out]``; the last has one output."""
    reads: str
    """Whose states it reads: the model's name, as its engine tells it (the configured weights)."""
    method: str
    """What trained it, such as ``citer`` or ``co-llm``."""
    about: dict[str, Any] = field(default_factory=dict)
    """How it was trained; told in answers' metadata."""

    @property
    def size(self) -> int:
        """Width of the states that it reads."""
        return int(self.layers[0][0].shape[1])

    @cached_property
    def version(self) -> str:
        """Hash of the weights: the same network has the same name everywhere."""
        digest = hashlib.sha256()
        for weight, bias in self.layers:
            digest.update(str(weight.shape).encode() + weight.tobytes() + bias.tobytes())
        return digest.hexdigest()[:16]

    def confidence(self, states: np.ndarray) -> np.ndarray:
        """Probabilities ``[n]`` that the model may write on, for states ``[n, size]``."""
        value = states.astype(np.float32)
        for number, (weight, bias) in enumerate(self.layers):
            value = value @ weight.T + bias
            if number < len(self.layers) - 1:
                value = np.maximum(value, 0.0)
        told: np.ndarray = 1.0 / (1.0 + np.exp(-value[:, 0].astype(np.float64)))
        return told

    def save(self, folder: Path) -> None:
        """Writes both files, the JSON last: who looks for a new router looks at that one."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, np.ndarray] = {}
        for number, (weight, bias) in enumerate(self.layers):
            tensors[f"{number}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
            tensors[f"{number}.bias"] = np.ascontiguousarray(bias, dtype=np.float32)
        data = save(tensors)
        _replace(folder / WEIGHTS, data)
        told = {
            "format": FORMAT,
            "method": self.method,
            "layers": len(self.layers),
            "reads": self.reads,
            "sha256": hashlib.sha256(data).hexdigest(),
            "about": self.about,
        }
        _replace(folder / ABOUT, (json.dumps(told, indent=1) + "\n").encode())


def load_router(folder: Path) -> Router:
    """Raises ``ConfigError`` for a folder that holds no router, or half of one."""
    try:
        told = json.loads((folder / ABOUT).read_text())
        data = (folder / WEIGHTS).read_bytes()
    except (OSError, json.JSONDecodeError) as fault:
        raise ConfigError(
            f"cannot read a router from {folder} ({fault}); make one with `orchestrion train citer`"
        ) from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else told
        raise ConfigError(
            f"{folder} holds a router of format {found!r}, not {FORMAT}; train it anew"
        )
    if hashlib.sha256(data).hexdigest() != told.get("sha256"):
        raise ConfigError(f"{folder}: {WEIGHTS} is not the file that {ABOUT} means; export anew")
    try:
        tensors = load(data)
        layers = tuple(
            (tensors[f"{number}.weight"], tensors[f"{number}.bias"])
            for number in range(told["layers"])
        )
        widths = [weight.shape for weight, _ in layers]
        if not widths or widths[-1][0] != 1:
            raise KeyError("the last layer has not one output")
        return Router(layers, told["reads"], told["method"], told["about"])
    except (SafetensorError, KeyError, IndexError) as fault:
        raise ConfigError(f"the router in {folder} is damaged ({fault!r}); export anew") from None


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".part")
    draft.write_bytes(data)
    draft.replace(path)
