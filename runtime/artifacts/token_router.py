"""A trained token router: from a model's hidden state, may that model write the next token?

Numpy, safetensors and JSON only: serving is independent of training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from runtime.artifacts.files import Kind
from runtime.artifacts.mlp import Layers, tensors_of

WEIGHTS, ABOUT = "router.safetensors", "router.json"
KIND: Final = Kind("a router", "orchestrion-router-1", WEIGHTS, ABOUT, "orchestrion train citer")


@dataclass(frozen=True, eq=False)
class Router:
    """A multilayer perceptron over a last-layer state: ReLU between layers, a logit at the end
    whose sigmoid is the probability that the model's own token is good enough."""

    layers: Layers
    """float32 weights ``[out, in]`` and biases ``[out]``; the last has one output."""
    reads: str
    """The model whose states it reads: ``EngineSpec.model``, the configured weights."""
    method: str
    """The training method, such as ``citer`` or ``co-llm``."""
    about: dict[str, Any] = field(default_factory=dict)
    """How it was trained; part of the answers' metadata."""

    @property
    def size(self) -> int:
        """Width of the hidden states."""
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
        probabilities: np.ndarray = 1.0 / (1.0 + np.exp(-value[:, 0].astype(np.float64)))
        return probabilities

    def save(self, folder: Path) -> None:
        """Writes the export."""
        description = {"method": self.method, "layers": len(self.layers), "reads": self.reads}
        KIND.write(folder, tensors_of(self.layers), {**description, "about": self.about})


def load_router(folder: Path) -> Router:
    """Reads an export. Raises ``ConfigError`` for a folder without a whole router."""
    with KIND.read(folder) as export:
        values = export.description
        layers = export.layers(values["layers"])
        if not layers or layers[-1][0].shape[0] != 1:
            raise KeyError("the last layer must have one output")
        return Router(layers, values["reads"], values["method"], values["about"])
