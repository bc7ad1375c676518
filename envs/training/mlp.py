"""Multilayer perceptrons in torch, and their weights as an agent holds them."""

from __future__ import annotations

from torch import nn

from runtime.artifacts.mlp import Layers


def perceptron(size: int, hidden: tuple[int, ...], out: int, last: float) -> nn.Sequential:
    """Linear layers with tanh between them, orthogonal weights, biases at zero."""
    sizes = (size, *hidden, out)
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False)):
        linear = nn.Linear(before, after)
        nn.init.orthogonal_(linear.weight, last if number == len(hidden) else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def layers_of(model: nn.Sequential) -> Layers:
    """A perceptron's weights ``[out, in]`` and biases ``[out]``, as an ``Agent`` holds them."""
    return tuple(
        (layer.weight.detach().cpu().numpy().copy(), layer.bias.detach().cpu().numpy().copy())
        for layer in model
        if isinstance(layer, nn.Linear)
    )
