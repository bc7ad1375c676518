"""Ragged attention over many sequences concatenated in one row, without padding.

A pass flattens the new tokens of all its sequences into ``input_ids [1, N]``. Linear layers see one
matrix; only attention needs the boundaries of sequences. transformers calls ``ragged_attention``,
which reads the plan of the pass from a thread-local: keyword arguments do not reach the attention
of every model class.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from runtime.engines.transformers.kv_cache import KeyValues
from runtime.errors import ConfigError

NAME = "orchestrion_ragged"
FOLD = 128
"""Up to this many folded query rows, a query group shares one read of its keys."""


class Attends(Protocol):
    """Attention of one layer: query ``[1, heads, N, head_dim]``, result ``[1, N, heads,
    head_dim]``."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor: ...


class _Current(threading.local):
    plan: Attends | None = None


_CURRENT = _Current()


@contextmanager
def planned(plan: Attends) -> Iterator[None]:
    """Attention calls of this thread go to ``plan`` inside the block."""
    _CURRENT.plan = plan
    try:
        yield
    finally:
        _CURRENT.plan = None


def ragged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function registered with transformers. Raises ``ConfigError`` for unsupported
    kinds of attention, which the probe at load time detects."""
    plan = _CURRENT.plan
    if plan is None:
        raise ConfigError("the model was called outside the engine's forward pass")
    unsupported = [name for name in ("s_aux", "position_bias") if others.get(name) is not None]
    if attention_mask is not None:
        unsupported.append("its own attention mask")
    if not getattr(module, "is_causal", True) or others.get("is_causal") is False:
        unsupported.append("bidirectional attention")
    if unsupported:
        raise ConfigError(f"its attention uses {', '.join(unsupported)}")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return plan.attend(layer, query, key, value, scaling, sliding_window, softcap), None


ALL_ATTENTION_FUNCTIONS.register(NAME, ragged_attention)


class Piece:
    """The next ``length`` tokens of one sequence, after the ``start`` tokens of its buffer."""

    def __init__(self, kv: KeyValues, start: int, length: int) -> None:
        self.start, self.length = start, length
        self._kv = kv
        self.places = kv.places(start, start + length)
        self._spans: dict[int, tuple[torch.Tensor, ...]] = {}
        self._masks: dict[tuple[int | None, int], torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """``query`` and result: ``[length, kv_heads, group, head_dim]``."""
        stop = self.start + self.length
        if window is not None and stop <= window:
            window = None
        low = 0 if window is None else max(0, self.start - window + 1)
        span = self._spans.get(low)
        if span is None:
            span = self._spans[low] = self._kv.span(low, stop)
        keys, values = span[2 * layer], span[2 * layer + 1]
        if softcap is not None:
            return self._capped(query, keys, values, scaling, window, low, softcap)
        if self.length == 1:
            return scaled_dot_product_attention(query, keys, values, scale=scaling)
        n, heads, group, _ = query.shape
        if n * group <= FOLD:
            folded = query.transpose(0, 1).reshape(1, heads, n * group, -1)
            mask = self._mask(window, low, group, query)
            out = scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=scaling)
            return out.view(heads, n, group, -1).transpose(0, 1)
        whole = self.start == 0 and window is None
        out = scaled_dot_product_attention(
            query.permute(1, 2, 0, 3),
            keys.transpose(0, 1).expand(-1, group, -1, -1),
            values.transpose(0, 1).expand(-1, group, -1, -1),
            attn_mask=None if whole else self._mask(window, low, 1, query),
            is_causal=whole,
            scale=scaling,
        )
        return out.permute(2, 0, 1, 3)

    def _mask(self, window: int | None, low: int, group: int, like: torch.Tensor) -> torch.Tensor:
        """Additive mask, 0 or -inf: ``[length * group, stop - low]``."""
        mask = self._masks.get((window, group))
        if mask is None:
            stop = self.start + self.length
            rows = torch.arange(self.start, stop, device=like.device)[:, None]
            columns = torch.arange(low, stop, device=like.device)
            hidden = columns > rows
            if window is not None:
                hidden |= columns <= rows - window
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            mask = mask.masked_fill_(hidden, float("-inf")).repeat_interleave(group, dim=0)
            self._masks[(window, group)] = mask
        return mask

    def _capped(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scaling: float | None,
        window: int | None,
        low: int,
        softcap: float,
    ) -> torch.Tensor:
        """Attention with tanh-capped logits (Gemma 2), which the fused kernels do not offer."""
        grouped = query.permute(1, 2, 0, 3)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        logits = grouped @ keys.transpose(0, 1).transpose(2, 3) * scale
        logits = softcap * torch.tanh(logits / softcap) + self._mask(window, low, 1, query)
        weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
        return (weights @ values.transpose(0, 1)).permute(2, 0, 1, 3)


class Plan:
    """The pieces of the flat row of one forward pass."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self._lengths = [piece.length for piece in pieces]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        new = torch.stack((key[0], value[0]))
        for piece, tokens in zip(self.pieces, new.split(self._lengths, dim=2), strict=True):
            piece.places[layer].copy_(tokens)
        grouped = query[0].unflatten(0, (key.shape[1], -1)).permute(2, 0, 1, 3)
        rows = grouped.split(self._lengths)
        outs = [
            piece.attend(layer, row, scaling, window, softcap)
            for piece, row in zip(self.pieces, rows, strict=True)
        ]
        return torch.cat(outs).flatten(1, 2)[None]


class Probe:
    """A plan that records the attention calls of a model at load time."""

    def __init__(self) -> None:
        self.layers: list[int] = []
        self.shapes: set[tuple[int, int, int]] = set()
        """(kv heads, key size, value size) seen."""
        self.windows: dict[int, int | None] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        self.layers.append(layer)
        self.shapes.add((key.shape[1], key.shape[3], value.shape[3]))
        self.windows[layer] = window
        shape = (1, query.shape[2], query.shape[1], value.shape[3])
        return torch.zeros(shape, dtype=query.dtype, device=query.device)
