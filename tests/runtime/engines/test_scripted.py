"""The scripted engines are whole engines: the same protocol, no torch."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys

import numpy as np
import pytest

from runtime.config.engines import EchoEngine, FlakyEngine, SlowEngine, TableEngine
from runtime.engines import build_engine
from runtime.engines.base import Engine
from runtime.engines.scripted.fault_injection import FlakyLM, SlowLM
from runtime.engines.scripted.models import EchoLM, TableLM
from runtime.errors import BadRequest, ConfigError, ContextOverflow, EngineFault
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.outputs import ALL
from runtime.types.query import Message
from runtime.types.sampling import Sampling

WORDS = ("the", " cat", " sat", " dog", ".")
TABLE = {
    "": {"the": 1.0},
    "the": {" cat": 3.0, " dog": 1.0},
    "the cat": {" sat": 1.0},
    " dog": {" sat": 1.0},
    " sat": {".": 1.0},
    ".": {"<eos>": 1.0},
}
CONFIG = TableEngine(vocabulary=WORDS, table=TABLE, floor=0.01, context_length=64)


def tokenizer_of(engine: Engine) -> Tokenizer:
    return Tokenizer(engine.spec.tokenizer)


async def test_a_table_writes_what_its_longest_matching_suffix_says() -> None:
    engine = TableLM(CONFIG)
    written = await engine.generate([0], Sampling(max_tokens=9, top_k=2))
    assert tokenizer_of(engine).decode(written.tokens) == " cat sat."
    assert written.finish == "eos" and written.tokens[-1] == engine.spec.eos_ids[0]
    assert written.logprobs[0] == pytest.approx(math.log(0.99 * 3 / 4))
    assert written.top is not None and written.top[0].ids is not None
    assert written.top[0].ids.tolist() == [1, 3]


async def test_a_row_sums_to_one_and_the_rest_shares_the_floor() -> None:
    engine = TableLM(CONFIG)
    [row] = await engine.next_token([[0]], ALL)
    probabilities = np.exp(row.logprobs.astype(np.float64))
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert probabilities[3] == pytest.approx(0.99 / 4)
    assert probabilities[2] == pytest.approx(0.01 / (engine.spec.vocab_size - 2))


async def test_a_suffix_matches_text_however_it_was_cut_into_tokens() -> None:
    engine = TableLM(CONFIG)
    letters = [len(WORDS) + byte for byte in b"the cat"]
    spelled, whole = await engine.next_token([letters, [0, 1]], ALL)
    assert np.array_equal(spelled.logprobs, whole.logprobs)
    assert int(whole.logprobs.argmax()) == 2


async def test_a_scripted_score_equals_its_scored_tail_and_its_own_generation() -> None:
    engine = TableLM(CONFIG)
    [score] = await engine.score([0], [[3, 2, 4]])
    tailed = await engine.generate([0, 3, 2, 4], Sampling(max_tokens=1), score_tail=3)
    assert tailed.tail_logprobs == score.logprobs
    own = await engine.generate([0], Sampling(max_tokens=4))
    [again] = await engine.score([0], [own.tokens], top_k=1)
    assert again.logprobs == own.logprobs
    assert again.top is not None and len(again.top) == 4


async def test_scripted_sampling_is_the_same_in_chunks() -> None:
    engine = TableLM(CONFIG)
    sampling = Sampling(max_tokens=12, temperature=2.0, top_p=0.99, seed=4, ignore_eos=True)
    whole = (await engine.generate([0], sampling)).tokens
    known = [0]
    for _ in range(4):
        piece = Sampling(max_tokens=3, temperature=2.0, top_p=0.99, seed=4, ignore_eos=True)
        known += (await engine.generate(known, piece)).tokens
    assert tuple(known[1:]) == whole


async def test_stop_strings_and_words_end_a_scripted_text() -> None:
    engine = TableLM(CONFIG)
    stopped = await engine.generate([0], Sampling(max_tokens=9, stop=("t s",)))
    assert (stopped.finish, stopped.tokens) == ("stop", (1, 2))
    one_word = await engine.generate([0], Sampling(max_tokens=9, words=1))
    assert (one_word.finish, one_word.tokens) == ("words", (1, 2))


async def test_scripted_engines_refuse_what_real_ones_refuse() -> None:
    engine = TableLM(CONFIG)
    with pytest.raises(ContextOverflow):
        await engine.generate([0] * 64, Sampling())
    with pytest.raises(BadRequest):
        await engine.generate([], Sampling())
    with pytest.raises(BadRequest):
        await engine.score([0], [[10**6]])


async def test_a_scripted_embedding_is_a_unit_vector_of_the_bag_of_tokens() -> None:
    engine = TableLM(CONFIG)
    a, same_bag, other = await engine.embed([[0, 1, 2], [2, 0, 1], [3]])
    assert a.shape == (engine.spec.hidden_size,) and a.dtype == np.float32
    assert np.linalg.norm(a) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(a, same_bag, atol=1e-6)
    assert not np.allclose(a, other, atol=0.1)


@pytest.mark.parametrize(
    ("table", "message"),
    (
        ({"": {" bird": 1.0}}, "add it to vocabulary"),
        ({"": {"the": 0.0}}, "not all 0"),
        ({"": {"the": -1.0, ".": 2.0}}, "at least 0"),
        ({"": {}}, "not all 0"),
    ),
)
def test_a_table_that_cannot_work_says_what_to_change(
    table: dict[str, dict[str, float]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TableLM(TableEngine(vocabulary=WORDS, table=table))


async def test_a_table_without_a_fallback_is_uniform_where_nothing_matches() -> None:
    engine = TableLM(TableEngine(vocabulary=WORDS, table={"the": {".": 1.0}}))
    [row] = await engine.next_token([[1]], ALL)
    assert np.allclose(row.logprobs, -math.log(engine.spec.vocab_size))


async def test_echo_repeats_the_last_user_message_and_ends() -> None:
    engine = EchoLM(EchoEngine())
    tokenizer = tokenizer_of(engine)
    messages = (
        Message("system", "be brief"),
        Message("user", "no"),
        Message("assistant", "no"),
        Message("user", "grüß  dich,\nWelt"),
    )
    prompt = tokenizer.chat(messages)
    written = await engine.generate(prompt, Sampling(max_tokens=99))
    assert tokenizer.decode(written.tokens) == "grüß dich, Welt"
    assert written.finish == "eos"
    first = await engine.generate(prompt, Sampling(max_tokens=99, words=1))
    assert tokenizer.decode(first.tokens) == "grüß "
    rest = await engine.generate([*prompt, *first.tokens], Sampling(max_tokens=99))
    assert tokenizer.decode(rest.tokens) == "dich, Welt"


async def test_echo_goes_on_after_other_words_and_ends_at_once_without_a_user() -> None:
    engine = EchoLM(EchoEngine())
    tokenizer = tokenizer_of(engine)
    prompt = [*tokenizer.chat([Message("user", "one two three")]), *tokenizer.encode("uno")]
    written = await engine.generate(prompt, Sampling(max_tokens=99))
    assert tokenizer.decode(written.tokens) == " two three"
    bare = await engine.generate(tokenizer.encode_prompt("one two"), Sampling())
    assert (bare.finish, len(bare.tokens)) == ("eos", 1)


async def test_a_flaky_engine_fails_on_the_numbered_calls_of_any_verb() -> None:
    engine = FlakyLM(TableLM(CONFIG), fails_at=(2,), fails_from=4)
    await engine.score([0], [[1]])
    with pytest.raises(EngineFault, match="call 2"):
        await engine.generate([0], Sampling())
    await engine.embed([[0]])
    for _ in range(2):
        with pytest.raises(EngineFault):
            await engine.next_token([[0]], 1)


async def test_a_slow_engine_sleeps_from_its_first_slow_call_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    naps: list[float] = []
    sleep = asyncio.sleep

    async def nap(seconds: float) -> None:
        naps.extend([seconds] if seconds else [])
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    engine = SlowLM(TableLM(CONFIG), seconds=5.0, slow_from=2)
    await engine.score([0], [[1]])
    assert naps == []
    assert (await engine.generate([0], Sampling(max_tokens=1))).tokens == (1,)
    await engine.check()
    assert naps == [5.0]


async def test_the_factory_nests_scripted_engines_and_a_closed_one_says_so() -> None:
    engine = build_engine(SlowEngine(engine=FlakyEngine(engine=CONFIG, fails_at=(1,)), seconds=0))
    assert engine.spec.model == "table"
    with pytest.raises(EngineFault):
        await engine.embed([[0]])
    await engine.check()
    await engine.close()
    with pytest.raises(EngineFault):
        await engine.check()


def test_scripted_engines_need_no_torch() -> None:
    code = "import sys, runtime.engines.scripted.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
