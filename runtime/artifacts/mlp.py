"""Multilayer perceptrons in numpy: their tensors by name and the forward pass."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Layers: TypeAlias = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Weights ``[out, in]`` and biases ``[out]`` of a perceptron, float32."""


def tensors_of(layers: Layers, prefix: str = "") -> dict[str, np.ndarray]:
    """A perceptron's layers by name."""
    found: dict[str, np.ndarray] = {}
    for number, (weight, bias) in enumerate(layers):
        found[f"{prefix}{number}.weight"] = weight.astype(np.float32)
        found[f"{prefix}{number}.bias"] = bias.astype(np.float32)
    return found
