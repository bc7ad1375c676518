"""What the vLLM engine does besides giving the right numbers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from runtime.call_context import CallContext, use_call_context
from runtime.config.engines import VllmEngine
from runtime.engines import Engine
from runtime.errors import BadRequest, Overloaded, Unsupported
from runtime.types.outputs import Generation
from runtime.types.sampling import Sampling
from tests.integration.vllm.conftest import SMALL, Start
from tests.support.engine_parity import CLOSE, agree, both, text
from tests.support.local_stack import ask
from tests.support.models.deferral_pair import QUESTION, router

pytestmark = pytest.mark.asyncio(loop_scope="session")
Zoo = dict[str, Engine]
LONG = Sampling(max_tokens=300, ignore_eos=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def narrow(start: Start) -> Engine:
    """Writes one text at a time, lets four more wait, and pools states with a second engine."""
    settings = SMALL | {"max_num_seqs": 1, "max_num_queued_reqs": 5, "embedding": "pooling"}
    return await start(VllmEngine(weights="zoo:small", **settings))


class Spy:
    """Notes the prompts that an engine sends to vLLM, and how many are under way at once."""

    def __init__(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[list[int]] = []
        self.most = self._now = 0
        self._generate = engine._client._engine.generate
        monkeypatch.setattr(engine._client._engine, "generate", self._note)

    async def _note(self, prompt: Any, *args: Any, **more: Any) -> Any:
        self.prompts.append(prompt["prompt_token_ids"])
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            async for out in self._generate(prompt, *args, **more):
                yield out
        finally:
            self._now -= 1


async def test_a_cold_context_is_computed_once_and_then_shared(
    zoo_on_vllm: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = zoo_on_vllm["large"]
    prompt, tails = text(engine, 901, 300), [text(engine, 910 + i, 8) for i in range(5)]
    spy = Spy(engine, monkeypatch)
    scores = await engine.score(prompt, tails)
    assert spy.prompts[0] == prompt
    assert len(spy.prompts) == 1 + len(tails)
    assert spy.most == len(tails), "the continuations are in flight together"
    assert all(score.cached_tokens == 288 for score in scores), "all whole blocks of the context"
    spy.prompts.clear()
    await engine.score(prompt, [text(engine, 920, 8)])
    assert len(spy.prompts) == 1, "warm now"


async def test_a_written_context_counts_as_warm(
    zoo_on_vllm: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = zoo_on_vllm["large"]
    prompt = text(engine, 930, 200)
    written = await engine.generate(prompt, Sampling(max_tokens=100, ignore_eos=True))
    spy = Spy(engine, monkeypatch)
    await engine.score([*prompt, *written.tokens], [text(engine, 931, 5)])
    assert len(spy.prompts) == 1


async def test_rows_that_the_cache_swallowed_are_requested_again_in_its_own_blocks(
    zoo_on_vllm: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = zoo_on_vllm["large"]
    prompt, tail = text(engine, 940, 200), text(engine, 941, 70)
    [first] = await engine.score(prompt, [tail], 2)
    spy = Spy(engine, monkeypatch)
    [again] = await engine.score(prompt, [tail], 2)
    assert again.cached_tokens > len(prompt), "otherwise this tests nothing"
    assert again.logprobs == pytest.approx(first.logprobs, **CLOSE)
    lengths = [len(p) for p in spy.prompts]
    assert lengths == [269, 224, 256], "the whole text, then what ends at the borders 224 and 256"
    assert again.top is not None and len(again.top) == len(tail)


async def test_a_tail_scored_while_writing_is_mended_too(zoo_on_vllm: Zoo) -> None:
    engine = zoo_on_vllm["large"]
    prompt = text(engine, 950, 150)
    first = await engine.generate(prompt, Sampling(max_tokens=40, ignore_eos=True), 60)
    again = await engine.generate(prompt, Sampling(max_tokens=40, ignore_eos=True), 60)
    assert again.cached_tokens == 128 > 150 - 60
    assert again.tail_logprobs == pytest.approx(first.tail_logprobs, **CLOSE)
    assert len(again.tail_logprobs) == 60
    assert again.tokens == first.tokens


async def test_scoring_goes_before_writing_and_urgent_requests_before_others(
    narrow: Engine,
) -> None:
    """One sequence at a time: a later request is served sooner."""
    order: list[str] = []

    async def write(name: str, priority: int = 0) -> None:
        with use_call_context(CallContext(name, priority=priority)):
            await narrow.generate(text(narrow, 1, 5), LONG)
        order.append(name)

    async def score() -> None:
        await narrow.score(text(narrow, 2, 5), [text(narrow, 3, 5)])
        order.append("score")

    tasks = []
    for begun in (write("running"), write("batch", 10), write("chat"), score()):
        tasks.append(asyncio.ensure_future(begun))
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    assert order.index("score") < order.index("chat") < order.index("batch")


async def test_a_full_queue_is_our_own_error(narrow: Engine) -> None:
    calls = [narrow.generate(text(narrow, n, 4), Sampling(max_tokens=30)) for n in range(12)]
    replies = await asyncio.gather(*calls, return_exceptions=True)
    refused = [reply for reply in replies if isinstance(reply, Overloaded)]
    assert len(refused) == 7
    assert all(isinstance(reply, (Generation, Overloaded)) for reply in replies)


async def test_a_cancelled_call_frees_its_slot(narrow: Engine) -> None:
    prompt = text(narrow, 5, 10)
    started = time.monotonic()
    await narrow.generate(prompt, LONG)
    whole = time.monotonic() - started
    call = asyncio.ensure_future(narrow.generate(prompt, LONG))
    await asyncio.sleep(whole / 10)
    started = time.monotonic()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await narrow.generate(prompt, Sampling(max_tokens=1))
    assert time.monotonic() - started < whole / 2


async def test_a_pooling_engine_at_its_side_gives_the_same_states(
    narrow: Engine, zoo_on_transformers: Zoo
) -> None:
    assert "embed" in narrow.spec.capabilities
    await both((narrow, zoo_on_transformers["small"]), "embed", [text(narrow, 6, 30), [5]])
    assert (await narrow.embed([])).shape == (0, narrow.spec.hidden_size)


async def test_without_a_side_model_there_are_no_states(zoo_on_vllm: Zoo) -> None:
    engine = zoo_on_vllm["small"]
    assert "embed" not in engine.spec.capabilities
    with pytest.raises(Unsupported, match="embed"):
        await engine.embed([[5]])


async def test_meaningless_calls_are_refused_before_vllm_sees_them(zoo_on_vllm: Zoo) -> None:
    engine = zoo_on_vllm["small"]
    for wrong in (Sampling(temperature=-1.0), Sampling(top_p=0.0), Sampling(stop=("",))):
        with pytest.raises(BadRequest):
            await engine.generate([5], wrong)
    with pytest.raises(BadRequest, match="score_tail"):
        await engine.generate([5], Sampling(), 1)


async def test_a_request_for_whole_rows_does_not_disturb_its_batch(zoo_on_vllm: Zoo) -> None:
    engine = zoo_on_vllm["large"]
    prompts = [text(engine, 960 + n, 30) for n in range(3)]
    wanted = [Sampling(max_tokens=8, top_k=k, ignore_eos=True) for k in (-1, 0, 3)]
    alone = [await engine.generate(p, s) for p, s in zip(prompts, wanted, strict=True)]
    calls = (engine.generate(p, s) for p, s in zip(prompts, wanted, strict=True))
    agree(alone, list(await asyncio.gather(*calls)))
    assert alone[0].top is not None and len(alone[0].top[0].logprobs) == engine.spec.vocab_size


async def test_more_alternatives_than_there_are_tokens_are_all_of_them(zoo_on_vllm: Zoo) -> None:
    engine = zoo_on_vllm["small"]
    [row] = await engine.next_token([[5]], engine.spec.vocab_size + 7)
    assert len(row.logprobs) == engine.spec.vocab_size


async def test_dense_rows_are_probabilities(zoo_on_vllm: Zoo) -> None:
    [row] = await zoo_on_vllm["large"].next_token([[5, 6, 7]], -1)
    assert np.exp(row.logprobs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)


async def test_states_along_a_text_are_those_of_the_embedded_engine(
    narrow: Engine, zoo_on_transformers: Zoo
) -> None:
    prompt, more = text(narrow, 5, 40), text(narrow, 6, 20)
    await both([narrow, zoo_on_transformers["small"]], "states", prompt, more)
    await both([narrow, zoo_on_transformers["small"]], "states", prompt, [])


async def test_a_router_beside_vllm_hands_over_as_one_in_the_embedded_engine(
    narrow: Engine, zoo_on_vllm: Zoo, zoo_on_transformers: Zoo, tmp_path: Path
) -> None:
    citer = {
        "type": "citer",
        "members": ["small", "large"],
        "router": router(tmp_path),
        "threshold": 0.5,
    }
    entropy = {"type": "uncertainty", "members": ["small", "large"], "threshold": 0.8}
    members = {name: {"engine": {"type": "echo"}} for name in ("small", "large")}
    config = AppConfig.model_validate(
        {"members": members, "ensembles": {"citer": citer, "entropy": entropy}}
    )
    written = []
    for engines in (
        {"small": narrow, "large": zoo_on_vllm["large"]},
        {name: zoo_on_transformers[name] for name in ("small", "large")},
    ):
        stack = LocalStack(config, engines)
        answers = [await ask(stack, name, messages=QUESTION) for name in ("citer", "entropy")]
        written.append([(answer.text, answer.summary["tokens"]) for answer in answers])
        await stack.close()
    assert written[0] == written[1]
    assert all(min(result.values()) > 0 for _, result in written[0])
