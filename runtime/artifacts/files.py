"""Training exports for serving: a safetensors file and a JSON file that describes it.

Each file is replaced atomically, the JSON last. The JSON holds the hash of the tensors, so that a
folder with half of an export, or parts of two, is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from runtime.artifacts.mlp import Layers
from runtime.errors import ConfigError

DAMAGED: Final = (SafetensorError, KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What reading missing or mistyped values raises."""


@dataclass(frozen=True, slots=True)
class StoredExport:
    """An export as read from its folder."""

    description: dict[str, Any]
    tensors: dict[str, np.ndarray]
    version: str
    """Hash of both files."""

    def layers(self, count: int, prefix: str = "") -> Layers:
        """The ``count`` layers named by ``tensors_of``. Raises ``KeyError`` or ``ValueError``."""
        names = [f"{prefix}{number}" for number in range(count)]
        layers = tuple(
            (self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]) for name in names
        )
        for (weight, bias), name in zip(layers, names, strict=True):
            if weight.ndim != 2 or bias.shape != weight.shape[:1]:
                raise ValueError(f"{name}: weights {weight.shape} and biases {bias.shape}")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError(f"{name} holds NaN or infinity")
        for (before, _), (after, _), name in zip(layers, layers[1:], names[1:], strict=False):
            if after.shape[1] != before.shape[0]:
                raise ValueError(
                    f"{name} has {after.shape[1]} inputs, but {before.shape[0]} are given"
                )
        return layers


@dataclass(frozen=True, slots=True)
class Kind:
    """The file format of one kind of export."""

    name: str
    """With its article, for error messages: ``an agent``."""
    format: str
    weights: str
    about: str
    """The names of both files."""
    made_by: str
    """The command that writes one."""

    def write(
        self, folder: Path, tensors: Mapping[str, np.ndarray], description: Mapping[str, Any]
    ) -> None:
        """Writes tensors and description into ``folder``, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        data = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
        about = {"format": self.format, **description, "sha256": hashlib.sha256(data).hexdigest()}
        _replace(folder / self.weights, data)
        _replace(folder / self.about, (json.dumps(about, indent=1) + "\n").encode())

    @contextmanager
    def read(self, folder: Path) -> Iterator[StoredExport]:
        """Reads an export. Raises ``ConfigError`` for a folder without a whole export, and in place
        of any of ``DAMAGED`` that the body of the ``with`` statement raises."""
        try:
            text = (folder / self.about).read_text(encoding="utf-8")
            description = json.loads(text)
            data = (folder / self.weights).read_bytes()
        except (OSError, ValueError, RecursionError) as fault:
            raise ConfigError(
                f"cannot read {self.name} from {folder} ({fault}); write one with `{self.made_by}`"
            ) from None
        if not isinstance(description, dict) or description.get("format") != self.format:
            stored = description.get("format") if isinstance(description, dict) else description
            raise ConfigError(
                f"{folder} holds {self.name} of format {stored!r}, not {self.format}; "
                "train it again"
            )
        if hashlib.sha256(data).hexdigest() != description.get("sha256"):
            raise ConfigError(
                f"{folder}: {self.weights} is not the file that {self.about} means; export anew"
            )
        version = hashlib.sha256(text.encode() + data).hexdigest()[:12]
        try:
            yield StoredExport(description, load(data), version)
        except DAMAGED as fault:
            named = self.name.split(" ", 1)[1]
            raise ConfigError(
                f"the {named} in {folder} is damaged ({fault!r}); export anew"
            ) from None


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".part")
    draft.write_bytes(data)
    draft.replace(path)
