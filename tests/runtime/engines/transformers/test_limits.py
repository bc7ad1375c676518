"""Where generation ends, what is refused, and what cannot be loaded."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig, PretrainedConfig

from runtime.config.engines import TransformersEngine
from runtime.engines.transformers.engine import TransformersLM
from runtime.engines.transformers.loader import window_of
from runtime.errors import BadRequest, ConfigError, ContextOverflow, EngineFault, WeightsError
from runtime.text.words import complete_words
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.sampling import Sampling

Open = Callable[..., TransformersLM]
PROMPT = [40, 41, 42, 43]


async def test_a_stop_string_is_found_across_token_borders(lm: Open) -> None:
    engine = lm()
    table = Tokenizer(engine.spec.tokenizer).token_bytes
    free = await engine.generate(PROMPT, Sampling(max_tokens=60, temperature=1.0, ignore_eos=True))
    at = next(
        i
        for i in range(8, 58)
        if all(b.isascii() and b.isalpha() for b in (table[t] for t in free.tokens[i : i + 2]))
    )
    left, right = table[free.tokens[at]], table[free.tokens[at + 1]]
    stop = (left[-1:] + right[:1]).decode()
    whole = b"".join(table[t] for t in free.tokens)
    ends = whole.index(stop.encode()) + len(stop)
    stopped = await engine.generate(
        PROMPT, Sampling(max_tokens=60, temperature=1.0, ignore_eos=True, stop=("never", stop))
    )
    assert stopped.finish == "stop"
    assert stopped.tokens == free.tokens[: len(stopped.tokens)]
    lengths = [len(table[t]) for t in stopped.tokens]
    assert sum(lengths[:-1]) < ends <= sum(lengths)


async def test_generation_ends_after_so_many_complete_words(lm: Open) -> None:
    engine = lm()
    tokenizer = Tokenizer(engine.spec.tokenizer)
    sampling = Sampling(max_tokens=150, temperature=1.0, seed=3, words=2, ignore_eos=True)
    written = await engine.generate(PROMPT, sampling)
    assert written.finish == "words"
    assert complete_words(tokenizer.decode(written.tokens)) >= 2
    assert complete_words(tokenizer.decode(written.tokens[:-1])) < 2


async def test_the_eos_token_ends_the_text_and_is_part_of_it(lm: Open) -> None:
    engine = lm()
    for seed in range(200):
        sampling = Sampling(max_tokens=100, temperature=2.0, seed=seed)
        written = await engine.generate(PROMPT, sampling)
        if written.finish == "eos":
            break
    assert written.tokens[-1] == 0 and len(written.logprobs) == len(written.tokens)
    assert 0 not in written.tokens[:-1]
    deaf = Sampling(max_tokens=100, temperature=2.0, seed=seed, ignore_eos=True)
    other = await engine.generate(PROMPT, deaf)
    assert other.finish == "length" and len(other.tokens) == 100 and 0 not in other.tokens


async def test_a_text_ends_at_the_window_and_a_prompt_without_room_is_refused(lm: Open) -> None:
    engine = lm(max_context=12)
    assert engine.spec.context_length == 12
    written = await engine.generate(PROMPT, Sampling(max_tokens=99, ignore_eos=True))
    assert written.finish == "length" and len(written.tokens) == 8
    full = [5] * 12
    with pytest.raises(ContextOverflow) as refused:
        await engine.generate(full, Sampling(max_tokens=1))
    assert (refused.value.member, refused.value.tokens, refused.value.limit) == (
        engine.spec.model, 12, 12,
    )  # fmt: skip
    with pytest.raises(ContextOverflow):
        await engine.score(PROMPT, [[5], [5] * 9])
    with pytest.raises(ContextOverflow):
        await engine.next_token([full], 1)
    assert (await engine.embed([full])).shape == (1, 32)


async def test_requests_that_mean_nothing_are_refused(lm: Open) -> None:
    engine = lm()
    bad: list[tuple[list[int], Sampling, int]] = [
        ([], Sampling(), 0),
        ([-1], Sampling(), 0),
        ([10**6], Sampling(), 0),
        (PROMPT, Sampling(), 4),
        (PROMPT, Sampling(temperature=-1.0), 0),
        (PROMPT, Sampling(temperature=float("nan")), 0),
        (PROMPT, Sampling(top_p=0.0), 0),
        (PROMPT, Sampling(max_tokens=-1), 0),
        (PROMPT, Sampling(words=0), 0),
        (PROMPT, Sampling(stop=("",)), 0),
        (PROMPT, Sampling(top_k=-2), 0),
    ]
    for prompt, sampling, tail in bad:
        with pytest.raises(BadRequest):
            await engine.generate(prompt, sampling, tail)
    with pytest.raises(BadRequest):
        await engine.next_token([PROMPT], 0)
    with pytest.raises(BadRequest):
        await engine.score(PROMPT, [[1], [-5]])


async def test_asking_for_nothing_gives_nothing(lm: Open) -> None:
    engine = lm()
    assert await engine.score(PROMPT, []) == []
    assert (await engine.score(PROMPT, [[]]))[0].logprobs == ()
    assert (await engine.generate(PROMPT, Sampling(max_tokens=0))).tokens == ()
    assert await engine.next_token([], 1) == []
    assert (await engine.embed([])).shape == (0, engine.spec.hidden_size)


async def test_a_cancelled_call_gives_its_slot_to_the_next(lm: Open) -> None:
    engine = lm(max_sequences=1)
    endless = Sampling(max_tokens=180, ignore_eos=True)
    first = asyncio.create_task(engine.generate(PROMPT, endless))
    while engine.occupancy.running == 0:
        await asyncio.sleep(0)
    second = asyncio.create_task(engine.generate([9], Sampling(max_tokens=2, ignore_eos=True)))
    first.cancel()
    assert len((await second).tokens) == 2
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (engine.occupancy.running, engine.occupancy.queued) == (0, 0)


async def test_a_closed_engine_says_so(lm: Open) -> None:
    engine = lm()
    await engine.check()
    await engine.close()
    with pytest.raises(EngineFault):
        await engine.check()
    with pytest.raises(EngineFault):
        await engine.generate(PROMPT, Sampling())


async def test_the_spec_travels(lm: Open) -> None:
    spec = pickle.loads(pickle.dumps(lm("qwen2").spec))
    tokenizer = Tokenizer(spec.tokenizer)
    assert (spec.vocab_size, spec.hidden_size, spec.eos_ids) == (tokenizer.vocab_size, 32, (0,))
    assert tokenizer.decode(tokenizer.encode("the cat é")) == "the cat é"


@pytest.mark.parametrize(
    "config",
    (
        BloomConfig(vocab_size=300, hidden_size=16, n_layer=1, n_head=2),
        MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1),
    ),
    ids=lambda config: config.model_type,
)
def test_a_model_with_attention_of_its_own_is_refused_with_the_remedy(
    config: PretrainedConfig, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((folder_of("llama") / name).read_text())
    with pytest.raises(ConfigError, match="serve it with vLLM"):
        TransformersLM(TransformersEngine(weights=str(tmp_path), device="cpu"))


def test_a_device_that_is_not_there_is_a_config_error(
    lm: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="use device: cpu"):
        lm(device="cuda")
    with pytest.raises(ConfigError, match="is unknown to torch"):
        lm(device="abacus")


def test_a_folder_without_weights_is_a_weights_error(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_text((folder_of("llama") / name).read_text())
    with pytest.raises(WeightsError):
        TransformersLM(TransformersEngine(weights=str(tmp_path), device="cpu"))


def test_the_window_is_the_tightest_of_model_and_config() -> None:
    config = TransformersEngine(weights="w", max_context=100)
    wide = TransformersEngine(weights="w")
    assert window_of(SimpleNamespace(max_position_embeddings=50), config) == 50
    assert window_of(SimpleNamespace(max_position_embeddings=500), config) == 100
    long = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    stretched = SimpleNamespace(max_position_embeddings=500, rope_parameters=long)
    assert window_of(stretched, wide) == 64
    with pytest.raises(ConfigError, match="set max_context"):
        window_of(SimpleNamespace(), wide)
