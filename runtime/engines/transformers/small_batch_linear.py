"""Linear layers that are fast for a few rows on a CPU.

Scoring a short draft multiplies weights with two to eight rows. MKL's product behind
``torch.nn.functional.linear`` repacks the weights in every call: four rows took 1.4 to 3 times as
long as one. Its transposed product reads the weights in place once for four rows, in hardly more
time than for one. So a few rows are padded to multiples of four.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear, pad

WIDTH = 4
"""Rows of one read of the weights."""
MOST = 8
"""For more rows the ordinary product is faster, even for the widest layers."""
LEAST = 2**18
"""Smallest number of matrix entries for which memory bandwidth dominates."""
WIDE = 8
"""A layer with this ratio of outputs to inputs (one over a vocabulary) gains up to ``MOST`` rows;
others up to ``WIDTH``."""


def use_small_batch_linears(model: nn.Module) -> None:
    """Replaces the model's large float32 linear layers in place, on a CPU with MKL; results differ
    by rounding only. Other layers are not changed."""
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
