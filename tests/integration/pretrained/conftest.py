"""The two pretrained models, loaded once for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from runtime.engines import Engine, build_engine
from tests.support.pretrained import QUICKSTART, weight_folders


@pytest.fixture(scope="session")
def quickstart() -> AppConfig:
    return load(QUICKSTART)[1]


@pytest.fixture(scope="session")
def folders(quickstart: AppConfig) -> dict[str, Path]:
    return weight_folders(quickstart)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engines(
    quickstart: AppConfig, folders: dict[str, Path]
) -> AsyncIterator[dict[str, Engine]]:
    """By member, for a ``LocalStack``, which leaves them open. Their caches stay warm."""
    built = {name: build_engine(m.served_engine) for name, m in quickstart.members.items()}
    yield built
    for engine in built.values():
        await engine.close()
