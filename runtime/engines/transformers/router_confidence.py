"""Confidences for deferral, computed on the model's device: logits and states stay there."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import torch

from runtime.engines.deferral import chance
from runtime.engines.transformers.sequence import Layers, Row
from runtime.errors import BadRequest, UnknownRouter
from runtime.types.sampling import Deferral, Signal, TokenRouter

MAX_ROUTERS: Final = 8
"""Routers that an engine holds: ensembles that share a member have their own."""


class Routers:
    """LRU cache of routers by version, on the model's device."""

    def __init__(self, model: str, width: int, device: torch.device) -> None:
        self._model, self._width, self._device = model, width, device
        self._known: OrderedDict[str, Layers] = OrderedDict()

    def check(self, defer: Deferral | None) -> None:
        """Stores the router of a call. Raises ``UnknownRouter`` for a missing one, ``BadRequest``
        for one of another state width."""
        if defer is None or defer.by != "router":
            return
        if defer.weights is not None:
            if defer.weights.size != self._width:
                raise BadRequest(
                    f"the router reads states of {defer.weights.size} values, but those of "
                    f"{self._model!r} have {self._width}; it was trained for another model"
                )
            self._known[defer.router] = self._to_device(defer.weights)
        if defer.router not in self._known:
            raise UnknownRouter(self._model, defer.router)
        self._known.move_to_end(defer.router)
        while len(self._known) > MAX_ROUTERS:
            self._known.popitem(last=False)

    def layers(self, version: str) -> Layers:
        """The router's layers; ``check`` must have passed for ``version``."""
        return self._known[version]

    def _to_device(self, router: TokenRouter) -> Layers:
        def to_device(array: object) -> torch.Tensor:
            return torch.as_tensor(array, dtype=torch.float32, device=self._device)

        return [(to_device(weight), to_device(bias)) for weight, bias in router.layers]


def confidences(
    rows: Sequence[Row], logits: torch.Tensor, norms: torch.Tensor, states: torch.Tensor
) -> list[float]:
    """Confidences of rows under a ``Deferral``, from ``logits [n, vocab]``, their ``norms [n]`` and
    ``states [n, width]``. Rows of one router are batched."""
    values = [0.0] * len(rows)
    groups: dict[tuple[Signal, int], list[int]] = {}
    for place, row in enumerate(rows):
        sampling = row.sequence.sampling
        assert sampling is not None and sampling.defer is not None
        by = sampling.defer.by
        if by == "random":
            values[place] = chance(sampling.seed, row.position + 1)
        else:
            router = id(row.sequence.router) if by == "router" else 0
            groups.setdefault((by, router), []).append(place)
    for (signal, _), places in groups.items():
        if signal == "router":
            hidden = states[places].float()
            layers = rows[places[0]].sequence.router
            assert layers is not None
            for number, (weight, bias) in enumerate(layers):
                hidden = torch.nn.functional.linear(hidden, weight, bias)
                if number < len(layers) - 1:
                    hidden = hidden.relu()
            result = hidden[:, 0].sigmoid()
        else:
            probabilities = (logits[places] - norms[places, None]).exp()
            if signal == "margin":
                best = probabilities.topk(2, dim=-1).values
                result = best[:, 0] - best[:, 1]
            else:
                entropy = torch.special.entr(probabilities).sum(-1)
                result = (1.0 - entropy / math.log(logits.shape[-1])).clamp(0.0, 1.0)
        for place, value in zip(places, result.tolist(), strict=True):
            values[place] = value
    return values
