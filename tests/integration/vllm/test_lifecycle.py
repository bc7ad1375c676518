"""vLLM engines that are refused, closed, or lose their core."""

from __future__ import annotations

import asyncio
import dataclasses

import psutil
import pytest

from runtime.config import vllm_args
from runtime.config.engines import VllmEngine
from runtime.engines import build_engine
from runtime.errors import ConfigError, EngineFault
from runtime.types.sampling import Sampling
from tests.integration.vllm.conftest import SMALL, Start
from tests.support.engine_parity import text

pytestmark = pytest.mark.asyncio(loop_scope="session")
LONG = Sampling(max_tokens=300, ignore_eos=True)


async def test_settings_that_vllm_refuses_are_reported_before_anything_starts() -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with pytest.raises(ConfigError, match="max_model_len"):
        build_engine(VllmEngine(weights="zoo:small", max_model_len=10**6, **SMALL))
    started = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert not [p for p in started if "EngineCore" in "".join(p.cmdline())]


async def test_the_list_of_names_is_that_of_the_installed_vllm() -> None:
    import vllm
    from vllm.engine.arg_utils import AsyncEngineArgs

    assert vllm.__version__.startswith(vllm_args.VERSION + ".")
    names = {f.name for f in dataclasses.fields(AsyncEngineArgs) if not f.name.startswith("_")}
    assert names == set(vllm_args.NAMES)
    assert names >= {*vllm_args.OURS, *vllm_args.SET}


@pytest.mark.slow
async def test_a_closed_engine_fails_its_pending_calls(start: Start) -> None:
    engine = await start(VllmEngine(weights="zoo:small", embedding="pooling", **SMALL))
    prompt = text(engine, 1, 5)
    longest = Sampling(max_tokens=480, ignore_eos=True)
    pending = [asyncio.ensure_future(engine.generate(prompt, longest)) for _ in range(3)]
    await asyncio.sleep(0.05)
    pending.append(asyncio.ensure_future(engine.embed([text(engine, 2, 500)] * 20)))
    await asyncio.sleep(0.01)
    await engine.close()
    replies = await asyncio.gather(*pending, return_exceptions=True)
    assert all(isinstance(reply, EngineFault) for reply in replies), replies
    with pytest.raises(EngineFault, match="closed"):
        await engine.check()
    for late in (engine.generate(prompt, LONG), engine.embed([prompt])):
        with pytest.raises(EngineFault, match="closed"):
            await late


@pytest.mark.slow
async def test_an_engine_whose_core_died_says_so(start: Start) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    engine = await start(VllmEngine(weights="zoo:small", **SMALL))
    await engine.check()
    prompt = text(engine, 1, 5)
    pending = asyncio.ensure_future(engine.generate(prompt, LONG))
    await asyncio.sleep(0.05)
    children = psutil.Process().children(recursive=True)
    [core] = [p for p in children if p.pid not in before and "EngineCore" in "".join(p.cmdline())]
    core.kill()
    with pytest.raises(EngineFault):
        async with asyncio.timeout(30):
            await pending
    with pytest.raises(EngineFault):
        await engine.check()
