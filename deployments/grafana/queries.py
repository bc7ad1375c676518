"""Panels, rows, and the PromQL expressions that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

EVERY: Final = "[$__rate_interval]"
ENSEMBLE: Final = 'ensemble=~"$ensemble"'
MEMBER: Final = 'member=~"$member"'
BOTH: Final = f"{ENSEMBLE},{MEMBER}"
COMPLETE: Final = "eos|stop|length|context|budget_.*"
"""The values of the label ``outcome`` of answers that came to their end."""
BROKEN_OFF: Final = f'{ENSEMBLE},outcome!~"{COMPLETE}"'


@dataclass(frozen=True)
class Line:
    """A PromQL expression, drawn as one line for each resulting series."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    lines: Sequence[Line]
    about: str = ""
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


def rate(metric: str, by: str, where: str = "") -> str:
    """The rate of a counter per second, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}{EVERY}))"


def growing(metric: str, by: str, where: str = "", name: str = "") -> Line:
    """A counter's rate for each value of the labels."""
    return Line(rate(metric, by, where), f"{_legend(by)} {name}".strip())


def level(metric: str, by: str, where: str = "", name: str = "", over: str = "sum") -> Line:
    """A gauge for each value of the label, over Ray's processes."""
    return Line(f"{over} by ({by}) ({metric}{{{where}}})", f"{_legend(by)} {name}".strip())


def quantiles(metric: str, by: str, where: str = "") -> list[Line]:
    """The 50th and 99th percentile of a histogram."""
    return [
        Line(
            f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'{by}, le', where)})",
            f"{_legend(by)} {name}",
        )
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    ]


def _legend(by: str) -> str:
    return ": ".join(f"{{{{{label}}}}}" for label in by.split(", "))
