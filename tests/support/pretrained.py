"""The two pretrained models of the demo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from runtime.config.engines import TransformersEngine
from runtime.errors import WeightsError
from runtime.weights import resolve
from tests.support.paths import ROOT

QUICKSTART = ROOT / "examples" / "quickstart.yaml"


@pytest.fixture(scope="module")
def config() -> AppConfig:
    return load(QUICKSTART)[1]


@pytest.fixture(scope="module")
def folders(config: AppConfig) -> Iterator[dict[str, Path]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("ORCHESTRION_OFFLINE", "1")
    found = {}
    for name, member in config.members.items():
        assert isinstance(member.engine, TransformersEngine)
        try:
            found[name] = resolve(member.engine.weights, member.engine.sha256)
        except WeightsError as fault:
            pytest.skip(f"run: orchestrion fetch examples/quickstart.yaml ({fault})")
    yield found
    patch.undo()
