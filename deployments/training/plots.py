"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHOWN = (("reward", "reward of an episode"), ("accuracy", "accuracy"), ("calls", "calls"))


def draw(curve: Sequence[Any], file: Path) -> None:
    """Reward, accuracy and length of the routes over environment steps, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    # The same run draws the same file.
    matplotlib.rcParams["svg.hashsalt"] = "orchestrion"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SHOWN) + 1, figsize=(13, 3), layout="constrained")
    steps = [point.steps for point in curve]
    for axis, (name, title) in zip(axes, (*SHOWN, ("cost", "cost of an answer")), strict=True):
        axis.plot(steps, [getattr(point, name) for point in curve], color="#3366cc")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("environment steps", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)
