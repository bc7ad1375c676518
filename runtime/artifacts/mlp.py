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


def through(layers: Layers, features: np.ndarray) -> np.ndarray:
    """A perceptron's output ``[n, out]``, tanh between its layers."""
    state = features.astype(np.float32)
    for number, (weight, bias) in enumerate(layers):
        state = state @ weight.T + bias
        if number < len(layers) - 1:
            state = np.tanh(state)
    return state
