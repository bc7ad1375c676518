"""Accuracy over the share of tokens of the large member: one curve for each ensemble of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from deployments.evaluation.runner import Row
from runtime.config.evaluation import EvaluationConfig

TARGET_FRACTION: Final = 0.95
"""Fraction of the large member's accuracy that counts as sufficient."""


@dataclass(frozen=True)
class Curve:
    """Points sorted by share, including both members alone (shares 0 and 1)."""

    shares: tuple[float, ...]
    accuracies: tuple[float, ...]
    thresholds: tuple[float | None, ...]

    def at(self, share: float) -> float:
        """Accuracy at a share, by linear interpolation."""
        return float(np.interp(share, self.shares, self.accuracies))

    def share_for(self, accuracy: float) -> float:
        """The smallest share with at least this accuracy, by linear interpolation; else 1."""
        before = (self.shares[0], self.accuracies[0])
        for share, reached in zip(self.shares, self.accuracies, strict=True):
            if reached >= accuracy:
                rise = reached - before[1]
                fraction = 1.0 if rise <= 0 else (accuracy - before[1]) / rise
                return before[0] + max(fraction, 0.0) * (share - before[0])
            before = (share, reached)
        return 1.0


def curves(rows: Sequence[Row], config: EvaluationConfig) -> dict[str, Curve]:
    """The curve of each ensemble of the sweep, from rows that include both members alone."""
    sweep = config.sweep
    assert sweep is not None
    alone = {row.name: row.accuracy for row in rows if row.kind == "member"}
    [small] = [name for name in alone if name != sweep.large]
    curves_by_name: dict[str, Curve] = {}
    for name in sweep.thresholds:
        points = sorted(
            (row.handed_over, row.accuracy, row.threshold)
            for row in rows
            if row.threshold is not None
            and row.handed_over is not None
            and row.name.rsplit(" @ ", 1)[0] == name
        )
        ends = [(0.0, alone[small], None), *points, (1.0, alone[sweep.large], None)]
        shares, accuracies, thresholds = zip(*ends, strict=True)
        curves_by_name[name] = Curve(shares, accuracies, thresholds)
    return curves_by_name


def summary(
    curves_by_name: Mapping[str, Curve], config: EvaluationConfig
) -> dict[str, dict[str, Any]]:
    """For each ensemble: accuracy at the configured shares, and the share that reaches
    ``TARGET_FRACTION`` of the large member's accuracy."""
    assert config.sweep is not None
    return {
        name: {
            "accuracy_at": {f"{share:g}": curve.at(share) for share in config.sweep.shares},
            "share_for_0.95": curve.share_for(TARGET_FRACTION * curve.accuracies[-1]),
        }
        for name, curve in curves_by_name.items()
    }


def table(curves_by_name: Mapping[str, Curve], config: EvaluationConfig) -> Table:
    """The curves as a table for the terminal."""
    assert config.sweep is not None
    shown = Table(title=f"accuracy by the share of tokens that {config.sweep.large} writes")
    shown.add_column("ensemble")
    for share in config.sweep.shares:
        shown.add_column(f"{share:.0%}", justify="right")
    shown.add_column(
        f"share for {TARGET_FRACTION:g} of {config.sweep.large}'s accuracy", justify="right"
    )
    for name, curve in curves_by_name.items():
        values = [f"{curve.at(share):.3f}" for share in config.sweep.shares]
        shown.add_row(
            name, *values, f"{curve.share_for(TARGET_FRACTION * curve.accuracies[-1]):.1%}"
        )
    return shown


def draw(curves_by_name: Mapping[str, Curve], file: Path) -> None:
    """The curves as SVG."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures draw the same file.
    matplotlib.rcParams["svg.hashsalt"] = "orchestrion"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for number, (name, curve) in enumerate(curves_by_name.items()):
        style = ("-", "--", ":")[number % 3]
        axis.plot(curve.shares, curve.accuracies, style, marker=".", label=name)
    large = next(iter(curves_by_name.values())).accuracies[-1]
    axis.axhline(TARGET_FRACTION * large, color="#999999", linewidth=0.8)
    axis.set_xlabel("share of tokens that the large member writes")
    axis.set_ylabel("accuracy")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)
