"""Ensembles write the same answers on both engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio

from deployments.config.app_config import AppConfig
from deployments.config.serve_file import load
from deployments.launch.in_process import LocalStack
from runtime.config.engines import TransformersEngine, VllmEngine
from runtime.data.grading import answers_match, extract_answer
from runtime.data.questions import read_questions
from runtime.engines import Engine, build_engine
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.query import Message
from tests.integration.vllm.conftest import SMALL, Start
from tests.support.engine_parity import both, every_verb_agrees, text
from tests.support.local_stack import ask
from tests.support.paths import ROOT
from tests.support.pretrained import weight_folders

pytestmark = pytest.mark.asyncio(loop_scope="session")
QUESTIONS = ROOT.parent / "shared" / "data" / "questions" / "gsm8k_test.jsonl"
METHODS = ("specfuse", "sweetspan", "cool-fusion")
TOKEN_METHODS = ("gac", "unite", "deepen", "abe")


async def answers(
    config: AppConfig,
    engines: Mapping[str, Engine],
    questions: Sequence[str],
    max_tokens: int,
    methods: Sequence[str] = METHODS,
    temperature: float = 0.0,
) -> dict[str, list[str]]:
    """By method."""
    stack = LocalStack(config, engines)
    wanted: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "seed": 3}
    written = {}
    for method in methods:
        request = (ask(stack, method, messages=(Message("user", q),), **wanted) for q in questions)
        written[method] = [answer.text for answer in await asyncio.gather(*request)]
    await stack.close()
    return written


async def test_ensembles_of_the_zoo_answer_the_same_on_both_engines(
    zoo_on_vllm: dict[str, Engine], zoo_on_transformers: dict[str, Engine]
) -> None:
    config = load(ROOT / "examples" / "zoo_two_hop.yaml")[1]
    assert config.evaluation is not None
    questions = read_questions(ROOT / config.evaluation.questions, 20)
    request = [question.question for question in questions]
    one, other = [
        await answers(config, engines, request, 48)
        for engines in (zoo_on_vllm, zoo_on_transformers)
    ]
    assert one == other
    pattern = config.evaluation.answer_pattern
    for method in METHODS:
        right = [
            answers_match(extract_answer(text, pattern), question.answer)
            for text, question in zip(one[method], questions, strict=True)
        ]
        assert sum(right) > 15, "answers that agree because all are empty would prove nothing"


@pytest.mark.parametrize("temperature", [0.0, pytest.param(0.8, marks=pytest.mark.slow)])
async def test_tokens_fused_from_the_zoo_are_the_same_on_both_engines(
    zoo_on_vllm: dict[str, Engine],
    zoo_on_transformers: dict[str, Engine],
    temperature: float,
) -> None:
    config = load(ROOT / "examples" / "zoo_tokens.yaml")[1]
    assert config.evaluation is not None
    questions = read_questions(ROOT / config.evaluation.questions, 6)
    request = [question.question for question in questions]
    one, other = [
        await answers(config, engines, request, 40, TOKEN_METHODS, temperature)
        for engines in (zoo_on_vllm, zoo_on_transformers)
    ]
    assert one == other
    assert all(text for texts in one.values() for text in texts)


# -- the two pretrained models -----------------------------------------------------------------

Pair = tuple[Engine, Engine]


@pytest.fixture(scope="module")
def quickstart() -> AppConfig:
    return load(ROOT / "examples" / "quickstart.yaml")[1]


@pytest.fixture(scope="module")
def folders(quickstart: AppConfig) -> dict[str, str]:
    return {name: str(folder) for name, folder in weight_folders(quickstart).items()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pretrained(start: Start, folders: dict[str, str]) -> dict[str, Pair]:
    """Each model on vLLM and on transformers, float32."""
    settings = SMALL | {"kv_cache_memory_bytes": 2**29, "max_model_len": 2048, "max_num_seqs": 16}
    pairs = {}
    for name, folder in folders.items():
        config = TransformersEngine(weights=folder, device="cpu", threads=1, max_context=2048)
        pairs[name] = (
            await start(VllmEngine(weights=folder, **settings)),
            build_engine(config),
        )
    return pairs


@pytest.mark.pretrained
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
async def test_pretrained_models_agree(pretrained: dict[str, Pair], name: str) -> None:
    engines = pretrained[name]
    one, other = (engine.spec for engine in engines)
    assert (one.vocab_size, one.eos_ids) == (other.vocab_size, other.eos_ids)
    await every_verb_agrees(engines, (1, 33, 1100))
    context = text(engines[0], 4, 600)
    [score] = await engines[0].score(context, [text(engines[0], 5, 10)])
    assert score.cached_tokens == 576, "sliding windows are kept as densely as full attention"


@pytest.mark.pretrained
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
async def test_unicode_tails_agree_on_pretrained_models(
    pretrained: dict[str, Pair], name: str
) -> None:
    engines = pretrained[name]
    tokenizer = Tokenizer(engines[0].spec.tokenizer)
    texts = ("Köln und Zürich", " 東京都", "👩‍🚀 flies", "e\u0301te\u0301", " до свидания")
    tails = [tokenizer.encode(tail) for tail in texts]
    await both(engines, "score", tokenizer.encode_prompt("A letter:\n"), tails)


@pytest.mark.pretrained
@pytest.mark.timeout(900)
async def test_ensembles_of_pretrained_models_answer_the_same_on_both_engines(
    quickstart: AppConfig, pretrained: dict[str, Pair]
) -> None:
    if not QUESTIONS.exists():
        pytest.skip(f"{QUESTIONS.name} is not here: real prompts for this test")
    lines = QUESTIONS.read_text().splitlines()[:3]
    request = [json.loads(line)["question"] for line in lines]
    one, other = [
        await answers(quickstart, {name: pair[i] for name, pair in pretrained.items()}, request, 32)
        for i in (0, 1)
    ]
    assert one == other
    assert all(len(answer) > 40 for answers_ in one.values() for answer in answers_)
