"""Multilayer perceptrons in numpy: their tensors by name and the forward pass."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Layers: TypeAlias = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Weights ``[out, in]`` and biases ``[out]`` of a perceptron, float32."""


def tensors_of(layers: Layers, prefix: str = "") -> dict[str, np.ndarray]:
    """The layers as named float32 tensors: ``{prefix}{n}.weight`` and ``{prefix}{n}.bias``."""
    tensors: dict[str, np.ndarray] = {}
    for number, (weight, bias) in enumerate(layers):
        tensors[f"{prefix}{number}.weight"] = weight.astype(np.float32)
        tensors[f"{prefix}{number}.bias"] = bias.astype(np.float32)
    return tensors


def through(layers: Layers, features: np.ndarray) -> np.ndarray:
    """Forward pass of ``features [n, in]`` to ``[n, out]``, tanh between layers."""
    state = features.astype(np.float32)
    for number, (weight, bias) in enumerate(layers):
        state = state @ weight.T + bias
        if number < len(layers) - 1:
            state = np.tanh(state)
    return state
