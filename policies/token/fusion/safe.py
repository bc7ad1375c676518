"""SAFE (arXiv 2510.15346): decides where an ensemble does not fuse. Pure.

A drafted token is kept without fusing
- where the text before it does not end at a token border of every other member's own spelling,
  since a model called inside one of its tokens is outside its training distribution, or
- where all others would choose it too, or the mean probability of all members for it is above
  ``agreement``.

Deviation: the paper's sharpening of flat distributions is left out; it would change the choice of
the fusion method that SAFE is combined with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from policies.token.fusion.config import SafeConfig
from policies.token.fusion.rows import Row


def stands(
    drafted: int,
    rows: Mapping[str, Row],
    drafter: str,
    border: Mapping[str, bool],
    safe: SafeConfig,
) -> bool:
    """Whether the drafted key needs no fusing; ``border``: member -> whether one of its own tokens
    ends before this place."""
    others = [name for name in rows if name != drafter]
    if not others or not all(border[name] for name in others):
        return True
    if all(rows[name].best == drafted for name in others):
        return True
    return float(np.mean([row.of_key(drafted) for row in rows.values()])) > safe.agreement
