"""Linear layers that are fast for a few tokens at once on a CPU.

Judging a short draft multiplies weights with two to eight rows. MKL's product for that, behind
``torch.nn.functional.linear``, lays the weights out anew in every call: four rows took 1.4 to 3
times as long as one. Asked for the transposed product it multiplies four rows in one walk over the
weights as they lie, in hardly more time than one row. So a few rows are filled up to fours.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear, pad

WIDTH = 4
"""Rows that one walk over the weights takes."""
MOST = 8
"""From more rows on the ordinary product is faster, even for the widest layers."""
LEAST = 2**18
"""Entries of a matrix from which on its size matters more than the number of operations."""
WIDE = 8
"""A layer with so many times more outputs than inputs (that is, one over a vocabulary) gains up to
``MOST`` rows; others up to ``WIDTH``."""


def use_small_batch_linears(model: nn.Module) -> None:
    """Changes the model's float32 linear layers on a CPU with MKL in place; what they compute
    differs by rounding only. Other layers and machines stay as they are."""
    if not torch.backends.mkl.is_available():
        return
    for module in model.modules():
        if type(module) is nn.Linear and _suits(module.weight):
            module.__class__ = SmallBatchLinear


def _suits(weight: torch.Tensor) -> bool:
    large = weight.numel() >= LEAST
    return large and weight.device.type == "cpu" and weight.dtype == torch.float32


class SmallBatchLinear(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``[…, in_features]`` to ``[…, out_features]``."""
        rows = input.flatten(0, -2)
        count = len(rows)
        wide = self.out_features >= WIDE * self.in_features
        if not 1 < count <= (MOST if wide else WIDTH):
            return linear(input, self.weight, self.bias)
        filled = pad(rows, (0, 0, 0, -count % WIDTH))
        parts = [torch.mm(self.weight, part.t()).t() for part in filled.split(WIDTH)]
        out = (parts[0] if len(parts) == 1 else torch.cat(parts))[:count]
        if self.bias is not None:
            out = out + self.bias
        return out.contiguous().view(*input.shape[:-1], self.out_features)
