"""Accuracy against how much is handed over: one curve for each ensemble of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from deployments.evaluation.runner import Row
from runtime.config.evaluation import EvaluationConfig

ENOUGH: Final = 0.95
"""Of the large member's accuracy."""


@dataclass(frozen=True)
class Curve:
    """Points in the order of their shares, both members alone included."""

    shares: tuple[float, ...]
    accuracies: tuple[float, ...]
    thresholds: tuple[float | None, ...]

    def at(self, share: float) -> float:
        """Accuracy at a share, linear between the points."""
        return float(np.interp(share, self.shares, self.accuracies))

    def needed(self, accuracy: float) -> float:
        """The least share with at least this accuracy, linear between the points."""
        before = (self.shares[0], self.accuracies[0])
        for share, found in zip(self.shares, self.accuracies, strict=True):
            if found >= accuracy:
                rise = found - before[1]
                part = 1.0 if rise <= 0 else (accuracy - before[1]) / rise
                return before[0] + max(part, 0.0) * (share - before[0])
            before = (share, found)
        return 1.0


def curves(rows: Sequence[Row], wish: EvaluationConfig) -> dict[str, Curve]:
    """Both members were asked alone."""
    plan = wish.sweep
    assert plan is not None
    alone = {row.name: row.accuracy for row in rows if row.kind == "member"}
    [small] = [name for name in alone if name != plan.large]
    found: dict[str, Curve] = {}
    for name in plan.thresholds:
        points = sorted(
            (row.handed_over, row.accuracy, row.threshold)
            for row in rows
            if row.threshold is not None
            and row.handed_over is not None
            and row.name.rsplit(" @ ", 1)[0] == name
        )
        ends = [(0.0, alone[small], None), *points, (1.0, alone[plan.large], None)]
        shares, accuracies, thresholds = zip(*ends, strict=True)
        found[name] = Curve(shares, accuracies, thresholds)
    return found


def told(found: Mapping[str, Curve], wish: EvaluationConfig) -> dict[str, dict[str, Any]]:
    """For each ensemble: accuracy at the configured shares, and the share that is enough."""
    assert wish.sweep is not None
    return {
        name: {
            "accuracy_at": {f"{share:g}": curve.at(share) for share in wish.sweep.shares},
            "share_for_0.95": curve.needed(ENOUGH * curve.accuracies[-1]),
        }
        for name, curve in found.items()
    }


def table(found: Mapping[str, Curve], wish: EvaluationConfig) -> Table:
    """For people."""
    assert wish.sweep is not None
    shown = Table(title=f"accuracy by the share of tokens that {wish.sweep.large} writes")
    shown.add_column("ensemble")
    for share in wish.sweep.shares:
        shown.add_column(f"{share:.0%}", justify="right")
    shown.add_column(f"share for {ENOUGH:g} of {wish.sweep.large}'s accuracy", justify="right")
    for name, curve in found.items():
        values = [f"{curve.at(share):.3f}" for share in wish.sweep.shares]
        shown.add_row(name, *values, f"{curve.needed(ENOUGH * curve.accuracies[-1]):.1%}")
    return shown


def draw(found: Mapping[str, Curve], file: Path) -> None:
    """The curves as SVG."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures draw the same file.
    matplotlib.rcParams["svg.hashsalt"] = "orchestrion"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for number, (name, curve) in enumerate(found.items()):
        style = ("-", "--", ":")[number % 3]
        axis.plot(curve.shares, curve.accuracies, style, marker=".", label=name)
    large = next(iter(found.values())).accuracies[-1]
    axis.axhline(ENOUGH * large, color="#999999", linewidth=0.8)
    axis.set_xlabel("share of tokens that the large member writes")
    axis.set_ylabel("accuracy")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)
