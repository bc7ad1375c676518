"""What token methods ask of an engine: logprobs of given ids, noise keyed by text, early ends."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from deployments.launch.in_process import LocalChannel
from runtime.calls.remote_engine import RemoteEngine
from runtime.config.engines import TableEngine
from runtime.engines.base import Engine
from runtime.engines.scripted.fault_injection import SlowLM
from runtime.engines.scripted.models import TableLM
from runtime.engines.transformers.engine import TransformersLM
from runtime.errors import BadRequest
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.outputs import ALL, Distribution, Tokens
from runtime.types.sampling import Sampling

WORDS = ("the", " cat", " sat", " dog", ".")
TABLE = {
    "": {"the": 5.0, ".": 2.0, " dog": 1.0},
    "the": {" cat": 3.0, " dog": 1.0},
    " cat": {" sat": 4.0, ".": 2.0, " dog": 3.0},
    " sat": {".": 1.0, "the": 1.0},
    ".": {"the": 2.0, " cat": 1.0, "<eos>": 3.0},
}
ENGINES = ("table", "llama", "gemma3", "table over the wire", "llama over the wire")
OVER_THE_WIRE = ENGINES[3:]


def table(*words: str) -> TableLM:
    return TableLM(TableEngine(vocabulary=words or WORDS, table=TABLE, floor=0.02))


@pytest_asyncio.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, lm: Callable[..., TransformersLM]) -> Engine:
    """Passes of 16 tokens, so that a text takes several."""
    kind, _, wire = request.param.partition(" over ")
    bare: Engine = table() if kind == "table" else lm(kind, max_batch_tokens=16)
    if not wire:
        return bare
    remote = RemoteEngine(LocalChannel(SlowLM(bare, seconds=0.0)))
    await remote.open()
    return remote


def text(seed: int, length: int) -> list[int]:
    """Tokens that all engines know and none ends with."""
    return random.Random(seed).choices(range(1, 255), k=length)


def ids_for(seed: int, lengths: Sequence[int]) -> list[list[Tokens]]:
    """None to five ids for each place."""
    choice = random.Random(seed)
    return [[text(choice.randrange(10**6), choice.randrange(6)) for _ in range(n)] for n in lengths]


def holds(row: Distribution, dense: Distribution, top_k: int, also: Tokens) -> None:
    """``row`` are the ``top_k`` best of a ``dense`` row, then ``also``, with the row's values."""
    assert row.ids is not None and dense.ids is None
    assert (row.ids.dtype, row.logprobs.dtype) == (np.int64, np.float32)
    assert row.ids[top_k:].tolist() == list(also)
    np.testing.assert_allclose(row.logprobs, dense.logprobs[row.ids], atol=1e-4)
    best = np.sort(dense.logprobs)[::-1][:top_k]
    np.testing.assert_allclose(row.logprobs[:top_k], best, atol=1e-4)
    assert len(set(row.ids[:top_k].tolist())) == top_k


@pytest.mark.parametrize("top_k", (1, 4))
async def test_ids_requested_have_the_values_of_the_whole_row(engine: Engine, top_k: int) -> None:
    prompt, tails = text(1, 21), [text(2, 7), [], text(3, 1), text(4, 25)]
    also = ids_for(5, [len(tail) for tail in tails])
    assert min(len(ids) for ids in also[3]) == 0, "some places ask for nothing"
    dense = await engine.score(prompt, tails, ALL)
    for _ in range(2):  # from the cache the second time
        scores = await engine.score(prompt, tails, top_k, also)
        for score, whole, wanted in zip(scores, dense, also, strict=True):
            assert score.logprobs == pytest.approx(whole.logprobs, abs=1e-4)
            assert score.top is not None and whole.top is not None
            for place in zip(score.top, whole.top, wanted, strict=True):
                holds(place[0], place[1], top_k, place[2])


async def test_a_continuation_may_ask_for_nothing(engine: Engine) -> None:
    prompt, tails = text(6, 9), [text(7, 3), text(8, 3)]
    [plain, more] = await engine.score(prompt, tails, 2, [[], [[5], [], [6, 7]]])
    assert plain.top is not None and [len(row.logprobs) for row in plain.top] == [2, 2, 2]
    assert more.top is not None and [len(row.logprobs) for row in more.top] == [3, 2, 4]


async def test_ids_among_the_best_are_reported_again(engine: Engine) -> None:
    prompt, [best] = text(9, 12), await engine.next_token([text(9, 12)], 2)
    assert best.ids is not None
    first, second = best.ids.tolist()
    also = [second, first, second]
    [row] = await engine.next_token([prompt], 2, [also])
    [score] = await engine.score(prompt, [[3]], 2, [[np.array(also)]])
    assert score.top is not None
    for top in (row, score.top[0]):
        assert top.ids is not None and top.ids.tolist() == [first, second, *also]
        again = [top.logprobs[i] for i in (1, 0, 1)]
        assert top.logprobs[2:].tolist() == pytest.approx(again, abs=1e-6)


async def test_next_tokens_requested_have_the_values_of_the_whole_row(engine: Engine) -> None:
    prompts = [text(10, 1), text(11, 30), text(12, 8)]
    also: list[Tokens] = [[4, 200], (), [9, 9, 17]]
    dense = await engine.next_token(prompts, ALL)
    for row, whole, wanted in zip(
        await engine.next_token(prompts, 3, also), dense, also, strict=True
    ):
        holds(row, whole, 3, wanted)


@pytest.mark.parametrize(
    ("top_k", "also", "message"),
    (
        (2, [[[5], []]], "1 entries for 2"),
        (2, [[[5], []], [[5]], []], "3 entries for 2"),
        (2, [[[5], []], [[5], []]], "2 places of 1"),
        (2, [[[5]], [[5]]], "1 places of 2"),
        (2, [[[5], [-1]], [[5]]], "token id -1 is outside"),
        (2, [[[5], []], [[10**6]]], "token id 1000000 is outside"),
        (0, [[[5], []], [[5]]], "at least 1"),
        (ALL, [[[5], []], [[5]]], "at least 1"),
    ),
)
async def test_ids_that_fit_no_place_or_no_vocabulary_are_refused(
    engine: Engine, top_k: int, also: Any, message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        await engine.score(text(13, 4), [[1, 2], [3]], top_k, also)


@pytest.mark.parametrize(
    ("top_k", "also"), ((2, [[5]]), (2, [[5], [5], [5]]), (2, [[5], [-1]]), (ALL, [[5], []]))
)
async def test_so_they_are_after_several_prompts(engine: Engine, top_k: int, also: Any) -> None:
    with pytest.raises(BadRequest):
        await engine.next_token([text(14, 4), text(15, 5)], top_k, also)


@pytest.mark.parametrize("top_p", (1.0, 0.9))
async def test_noise_keyed_by_text_does_not_depend_on_chunks_or_neighbours(
    engine: Engine, top_p: float
) -> None:
    prompt = text(16, 9)
    drawn = Sampling(
        max_tokens=12,
        temperature=1.0,
        top_p=top_p,
        seed=4,
        ignore_eos=True,
        text_noise_from=len(prompt) - 3,  # three tokens of the answer stand already
    )
    whole = (await engine.generate(prompt, drawn)).tokens
    assert len(whole) == 12
    known = list(prompt)
    for chunk in range(3):
        part = replace(drawn, max_tokens=4, text_noise_from=len(known) - 3 - 4 * chunk)
        others = [
            engine.generate(text(20 + i, 9), replace(part, text_noise_from=i)) for i in range(2)
        ]
        mine, *_ = await asyncio.gather(engine.generate(known, part), *others)
        known += mine.tokens
    assert tuple(known[9:]) == whole
    for other in (replace(drawn, seed=5), replace(drawn, text_noise_from=None)):
        assert (await engine.generate(prompt, other)).tokens != whole


async def test_two_vocabularies_that_think_alike_write_the_same_text() -> None:
    """Their prompts differ in length, their tokens in their ids; neither matters to the noise."""
    one, other = table(*WORDS), table(*reversed(WORDS))
    differ = 0
    for seed in range(10):
        texts = {}
        for keyed in (True, False):
            for engine, context in ((one, ""), (other, "the dog sat.")):
                tokenizer = Tokenizer(engine.spec.tokenizer)
                prompt = tokenizer.encode_prompt(f"{context}the")
                origin = len(prompt) if keyed else None
                sampling = Sampling(16, temperature=0.8, seed=seed, text_noise_from=origin)
                written = await engine.generate(prompt, sampling)
                texts[keyed, engine] = (tokenizer.decode(written.tokens), written.finish)
        assert texts[True, one] == texts[True, other]
        differ += texts[False, one] != texts[False, other]
    assert differ, "otherwise this tests nothing"


async def test_a_text_ends_with_the_first_token_its_writer_is_not_sure_of(engine: Engine) -> None:
    prompt = text(17, 9)
    for seed in range(3):
        free = Sampling(max_tokens=14, temperature=1.0, seed=seed, ignore_eos=True)
        whole = await engine.generate(prompt, free)
        values = sorted(set(whole.logprobs))
        gaps = [(a + b) / 2 for a, b in zip(values, values[1:], strict=False) if b - a > 1e-2]
        assert len(gaps) > 1
        for least in gaps:
            first = next(i for i, logprob in enumerate(whole.logprobs) if logprob < least)
            cut = await engine.generate(prompt, replace(free, until_below=math.exp(least)))
            assert (cut.tokens, cut.finish) == (whole.tokens[: first + 1], "length")
        loose = replace(free, until_below=math.exp(values[0] - 0.1))
        assert (await engine.generate(prompt, loose)).tokens == whole.tokens


async def test_a_draft_ends_where_the_table_is_torn() -> None:
    engine = table()
    prompt = Tokenizer(engine.spec.tokenizer).encode_prompt("the")
    for least, words, finish in (
        (0.8, [" cat"], "length"),  # 0.98 * 3/4
        (0.7, [" cat", " sat"], "length"),  # 0.98 * 4/9
        (0.4, [" cat", " sat", "the"], "length"),
    ):
        greedy = Sampling(max_tokens=3, until_below=least)
        written = await engine.generate(prompt, greedy)
        assert [WORDS[token] for token in written.tokens] == words
        assert written.finish == finish


@pytest.mark.parametrize("engine", OVER_THE_WIRE, indirect=True)
async def test_calls_that_share_a_message_keep_their_own_ids(engine: Engine) -> None:
    prompt, also = text(18, 6), [[[5]], [[6, 7]], [[]]]
    scores = await asyncio.gather(*(engine.score(prompt, [[3]], 1, [ids]) for ids in also))
    for [score], [ids] in zip(scores, also, strict=True):
        assert score.top is not None and score.top[0].ids is not None
        assert score.top[0].ids[1:].tolist() == ids
