"""vLLM and the embedded engine agree on every model of the zoo."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from runtime.engines import Engine
from runtime.errors import BadRequest, ContextOverflow
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.outputs import Generation
from runtime.types.sampling import Sampling
from tests.integration.vllm.conftest import ZOO
from tests.support.engine_parity import agree, both, every_verb_agrees, text

pytestmark = pytest.mark.asyncio(loop_scope="session")
Zoo = dict[str, Engine]


@pytest.mark.parametrize("name", ZOO)
async def test_every_verb_agrees(zoo_on_vllm: Zoo, zoo_on_transformers: Zoo, name: str) -> None:
    engines = (zoo_on_vllm[name], zoo_on_transformers[name])
    one, other = (engine.spec for engine in engines)
    assert (one.vocab_size, one.context_length) == (other.vocab_size, other.context_length)
    assert (one.hidden_size, one.eos_ids) == (other.hidden_size, other.eos_ids)
    await every_verb_agrees(engines, (1, 2, 31, 32, 33, 65, 200, 400))


async def test_batches_of_mixed_lengths_agree(zoo_on_vllm: Zoo, zoo_on_transformers: Zoo) -> None:
    engines = (zoo_on_vllm["large"], zoo_on_transformers["large"])

    async def all_at_once(engine: Engine) -> list[Generation]:
        calls = [
            engine.generate(
                text(engine, n, 1 + (37 * n) % 300), Sampling(max_tokens=1 + n, top_k=n % 4), n % 2
            )
            for n in range(1, 17)
            if (37 * n) % 300 > 1
        ]
        return await asyncio.gather(*calls)

    one, other = [await all_at_once(engine) for engine in engines]
    agree(one, other)


async def test_unicode_tails_agree(zoo_on_vllm: Zoo, zoo_on_transformers: Zoo) -> None:
    engines = (zoo_on_vllm["capitals"], zoo_on_transformers["capitals"])
    tokenizer = Tokenizer(engines[0].spec.tokenizer)
    prompt = tokenizer.encode_prompt("The city of Paris is ")
    tails = [
        tokenizer.encode(t) for t in ("Köln", " 東京都", "👩‍🚀 flies", "e\u0301te\u0301", "\u0000")
    ]
    await both(engines, "score", prompt, tails)


@pytest.mark.parametrize("seed", range(5))
async def test_sampled_texts_agree_and_chunks_do_not_change_them(
    zoo_on_vllm: Zoo, zoo_on_transformers: Zoo, seed: int
) -> None:
    """vLLM's first model runner, the one on a CPU, draws with our noise."""
    engines = (zoo_on_vllm["small"], zoo_on_transformers["small"])
    prompt = text(engines[0], seed, 20)
    sampling = Sampling(max_tokens=24, temperature=1.3, top_p=0.95, seed=seed, ignore_eos=True)
    await both(engines, "generate", prompt, sampling)
    whole = (await engines[0].generate(prompt, sampling)).tokens
    first = (await engines[0].generate(prompt, replace(sampling, max_tokens=9))).tokens
    rest = await engines[0].generate([*prompt, *first], replace(sampling, max_tokens=15))
    assert (*first, *rest.tokens) == whole


async def test_texts_that_end_by_words_or_stop_strings_agree(
    zoo_on_vllm: Zoo, zoo_on_transformers: Zoo
) -> None:
    engines = (zoo_on_vllm["capitals"], zoo_on_transformers["capitals"])
    tokenizer = Tokenizer(engines[0].spec.tokenizer)
    prompt = tokenizer.encode_prompt("The city of Paris is")
    free = Sampling(max_tokens=30, ignore_eos=True)
    written = tokenizer.decode((await engines[0].generate(prompt, free)).tokens)
    await both(engines, "generate", prompt, Sampling(max_tokens=30, words=2, ignore_eos=True))
    stop = written.strip()[3:6]
    await both(engines, "generate", prompt, Sampling(max_tokens=30, stop=(stop,), ignore_eos=True))
    for ends in (Sampling(max_tokens=30, words=2), Sampling(max_tokens=30, stop=(stop,))):
        await both(engines, "generate", prompt, replace(ends, ignore_eos=True), 3)
    ended = await engines[0].generate(prompt, Sampling(max_tokens=30, words=1, ignore_eos=True))
    assert ended.finish == "words"


async def test_a_full_window_agrees_and_one_token_more_is_refused(
    zoo_on_vllm: Zoo, zoo_on_transformers: Zoo
) -> None:
    engines = (zoo_on_vllm["small"], zoo_on_transformers["small"])
    window = engines[0].spec.context_length
    prompt = text(engines[0], 7, window - 10)
    await both(engines, "score", prompt, [text(engines[0], 8, 10)])
    await both(engines, "generate", prompt, Sampling(max_tokens=50, ignore_eos=True))
    await both(engines, "score", text(engines[0], 7, window), [[]])
    for engine in engines:
        with pytest.raises(ContextOverflow):
            await engine.score(prompt, [text(engine, 8, 11)])
        with pytest.raises(ContextOverflow):
            await engine.generate(text(engine, 7, window), Sampling())
        with pytest.raises(BadRequest, match="at least one token"):
            await engine.generate([], Sampling())
        with pytest.raises(BadRequest, match="outside the vocabulary"):
            await engine.next_token([[engine.spec.vocab_size]], 1)
