"""The two pretrained models of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.config.app_config import AppConfig
from runtime.config.engines import TransformersEngine
from runtime.errors import WeightsError
from runtime.weights import resolve
from tests.support.paths import ROOT

QUICKSTART = ROOT / "examples" / "quickstart.yaml"


def weight_folders(config: AppConfig) -> dict[str, Path]:
    """The folder of each member's weights; skips the test where they were not fetched."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRION_OFFLINE", "1")
        for name, member in config.members.items():
            assert isinstance(member.engine, TransformersEngine)
            try:
                found[name] = resolve(member.engine.weights, member.engine.sha256)
            except WeightsError as fault:
                pytest.skip(f"run: orchestrion fetch examples/quickstart.yaml ({fault})")
    return found
