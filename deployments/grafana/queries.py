"""What panels are made of, and the expressions that many of them share."""

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
    """One expression; a line for each series that it comes to."""

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
    """How fast a counter grows, in a second."""
    return f"sum by ({by}) (rate({metric}{{{where}}}{EVERY}))"


def growing(metric: str, by: str, where: str = "", name: str = "") -> Line:
    """A counter's rate for each value of the labels."""
    return Line(rate(metric, by, where), f"{_shown(by)} {name}".strip())


def level(metric: str, by: str, where: str = "", name: str = "", over: str = "sum") -> Line:
    """A gauge for each value of the label; Ray has one of it for each process."""
    return Line(f"{over} by ({by}) ({metric}{{{where}}})", f"{_shown(by)} {name}".strip())


def quantiles(metric: str, by: str, where: str = "") -> list[Line]:
    """The median, and what 99 of 100 stay under."""
    return [
        Line(
            f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'{by}, le', where)})",
            f"{_shown(by)} {name}",
        )
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    ]


def _shown(by: str) -> str:
    return ": ".join(f"{{{{{label}}}}}" for label in by.split(", "))
