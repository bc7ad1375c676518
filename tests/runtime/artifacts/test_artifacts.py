"""Agents and routers on disk: a damaged export is reported when it is read, not by a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.artifacts.files import Kind
from runtime.artifacts.mlp import tensors_of
from runtime.artifacts.token_router import ABOUT, KIND, WEIGHTS, load_router
from runtime.errors import ConfigError

ONE = np.ones((3, 2), dtype=np.float32), np.zeros(3, dtype=np.float32)
TWO = np.ones((1, 3), dtype=np.float32), np.zeros(1, dtype=np.float32)
TOLD: dict[str, Any] = {"layers": 2, "reads": "state", "method": "citer", "about": {}}


def test_a_whole_router_is_read(tmp_path: Path) -> None:
    KIND.write(tmp_path, tensors_of((ONE, TWO)), TOLD)
    assert load_router(tmp_path).reads == "state"


@pytest.mark.parametrize("name", [ABOUT, WEIGHTS])
@pytest.mark.parametrize("data", [b"", b"{nope", b"[]", b"\xff\xfe", b"[" * 20_000])
def test_files_that_hold_something_else_are_reported(
    tmp_path: Path, name: str, data: bytes
) -> None:
    KIND.write(tmp_path, tensors_of((ONE, TWO)), TOLD)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_router(tmp_path)


NAN = ONE[0] * np.float32("nan"), ONE[1]
FLAT = ONE[0].reshape(-1), ONE[1]


@pytest.mark.parametrize(
    ("layers", "changed", "message"),
    [
        ((NAN, TWO), {}, "NaN"),
        ((TWO, ONE), {}, "has 2 inputs, but 1 are given"),
        ((FLAT, TWO), {}, "weights"),
        ((ONE, TWO), {"layers": 3}, "2.weight"),
        ((ONE, TWO), {"layers": "two"}, "TypeError"),
        ((ONE, TWO), {"layers": 1}, "must have one output"),
    ],
)
def test_layers_that_do_not_fit_are_reported(
    tmp_path: Path, layers: Any, changed: dict[str, Any], message: str
) -> None:
    KIND.write(tmp_path, tensors_of(layers), TOLD | changed)
    with pytest.raises(ConfigError, match=f"damaged.*{message}.*export anew"):
        load_router(tmp_path)


def test_weights_of_another_export_are_reported(tmp_path: Path) -> None:
    kind = Kind("a thing", "thing-1", "w.safetensors", "w.json", "make it")
    kind.write(tmp_path, {"a": ONE[0]}, {})
    about = json.loads((tmp_path / "w.json").read_text())
    (tmp_path / "w.json").write_text(json.dumps(about | {"sha256": "0" * 64}))
    with pytest.raises(ConfigError, match="export anew"), kind.read(tmp_path):
        pass
