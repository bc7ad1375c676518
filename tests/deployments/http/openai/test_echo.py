"""``echo``: the prompt in the reply, and with ``logprobs`` its exact log-likelihood, in the shape
that evaluation harnesses slice."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from tests.support.http.ensembles import served
from tests.support.local_stack import CAT, animals

KEYS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
THE, CATS, DOG, SAT, RAN, DOT = range(6)
EOS = 6 + 256 + 1
"""Ids of the cat's tokens."""


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    config = animals(
        pets={"type": "sweetspan", "span_words": 1}, slowly={"type": "single", "chunk_tokens": 1}
    )
    config["members"]["short"] = {"engine": {**CAT, "context_length": 8}}
    config["members"]["polite"] = {"engine": CAT, "stop": ["."]}
    stack = LocalStack(AppConfig.model_validate(config))
    with served(stack.api()) as url, OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        yield client.with_options(max_retries=0)
    asyncio.run(stack.close())


def echoed(client: OpenAI, prompt: Any, model: str = "cat", **more: Any) -> Any:
    params = {"model": model, "prompt": prompt, "echo": True, "temperature": 0, **more}
    return client.completions.create(**params)


def harness(client: OpenAI, prompt: Any, **more: Any) -> list[Any]:
    """Choices of the request that lm-evaluation-harness sends."""
    reply = echoed(client, prompt, max_tokens=1, logprobs=1, seed=1234, **more)
    return sorted(reply.choices, key=lambda choice: choice.index)


def test_the_prompt_comes_back_before_the_text(client: OpenAI) -> None:
    for model in ("cat", "pets"):
        alone = client.completions.create(model=model, prompt=" the", seed=1).choices[0]
        reply = echoed(client, " the", model, temperature=None, seed=1).choices[0]
        assert reply.text == " the" + alone.text and reply.logprobs is None
        stream = echoed(client, " the", model, temperature=None, seed=1, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == reply.text


def test_no_token_is_written_when_none_is_requested(client: OpenAI) -> None:
    for model in ("cat", "pets"):
        reply = echoed(client, " the", model, max_tokens=0)
        choice = reply.choices[0]
        assert (choice.text, choice.finish_reason) == (" the", "length")
        assert reply.usage.completion_tokens == 0 and reply.usage.prompt_tokens > 0
        assert reply.ensemble["usage"]["model_calls"] == 0


def test_a_prompt_alone_is_scored(client: OpenAI) -> None:
    reply = echoed(client, " the dog ran.", max_tokens=0, logprobs=2)
    result = reply.choices[0].logprobs
    assert reply.choices[0].text == " the dog ran."
    assert result.tokens == [" the", " dog", " ran", "."] and result.text_offset == [0, 4, 8, 12]
    expected = [0, math.log(2 / 5), math.log(4 / 5), 0]
    assert result.token_logprobs == pytest.approx(expected, abs=1e-5)
    assert set(result.top_logprobs[1]) == {" cat", " dog"}
    assert reply.usage.completion_tokens == 0 and reply.ensemble["usage"]["model_calls"] == 1


def test_the_best_token_and_the_chosen_one_are_among_the_alternatives(client: OpenAI) -> None:
    [choice] = harness(client, [THE, DOG, SAT, DOT])
    result = choice.logprobs
    assert result.top_logprobs[0] is None
    cat, dog = math.log(0.6), math.log(0.4)
    assert result.top_logprobs[1] == pytest.approx({" cat": cat, " dog": dog}, abs=1e-5)
    for token, logprob, top in zip(
        result.tokens[1:], result.token_logprobs[1:], result.top_logprobs[1:], strict=True
    ):
        assert top[token] == logprob


@pytest.mark.parametrize(
    ("ids", "generated"),
    [
        ([THE, CATS], " sat"),
        ([THE, CATS, SAT, DOT], ""),  # the end of the answer
        ([THE], " cat"),
        ([EOS, THE, EOS, EOS, CATS], " sat"),
    ],
)
def test_there_is_an_entry_for_each_id_and_one_for_the_generated_token(
    client: OpenAI, ids: list[int], generated: str
) -> None:
    [choice] = harness(client, ids)
    result = choice.logprobs
    assert all(len(getattr(result, key)) == len(ids) + 1 for key in KEYS)
    assert result.token_logprobs[0] is None and result.tokens[-1] == generated
    assert None not in result.token_logprobs[1:]
    assert "".join(result.tokens) == choice.text


def test_a_generated_token_that_is_cut_off_leaves_its_place(client: OpenAI) -> None:
    [choice] = harness(client, [THE, CATS], stop="sat")
    assert choice.text == " the cat " and len(choice.logprobs.tokens) == 3
    assert choice.logprobs.token_logprobs[-1] is None
    [choice] = harness(client, [THE, CATS, SAT], model="polite")
    assert choice.text == " the cat sat" and len(choice.logprobs.tokens) == 4


def test_the_slice_that_harnesses_sum_is_the_continuations_score(client: OpenAI) -> None:
    context, continuation = [THE, DOG], [SAT, DOT]
    [choice] = harness(client, context + continuation)
    slice_ = choice.logprobs.token_logprobs[len(context) : -1]
    assert slice_ == pytest.approx([math.log(1 / 5), 0], abs=1e-5)
    tops = choice.logprobs.top_logprobs[len(context) : -1]
    greedy = [own == max(top.values()) for own, top in zip(slice_, tops, strict=True)]
    assert greedy == [False, True]


def test_four_forms_of_prompt_are_scored(client: OpenAI) -> None:
    text, ids = " the cat", [THE, CATS]
    [from_text], [from_ids] = harness(client, text), harness(client, ids)
    for batch in (harness(client, [text, " the dog"]), harness(client, [ids, [THE, DOG, RAN]])):
        assert [choice.index for choice in batch] == [0, 1]
        assert batch[1].logprobs.tokens[:2] == [" the", " dog"]
    assert harness(client, [text, text])[1].logprobs == from_text.logprobs
    assert harness(client, [ids, ids])[1].logprobs == from_ids.logprobs
    # A text stands after the BOS, which it does not hold itself; ids stand as they are.
    assert from_text.logprobs.token_logprobs[0] == pytest.approx(0, abs=1e-5)
    assert from_ids.logprobs.token_logprobs[0] is None
    assert from_text.logprobs.token_logprobs[1:] == from_ids.logprobs.token_logprobs[1:]


def test_a_bos_that_the_text_spells_out_is_a_token_of_it(client: OpenAI) -> None:
    [choice] = harness(client, "<bos> the cat")
    result = choice.logprobs
    assert result.tokens == ["", " the", " cat", " sat"] and result.text_offset == [0, 5, 9, 13]
    assert result.token_logprobs[0] is None and choice.text == "<bos> the cat sat"


def test_more_tokens_go_on_after_the_prompts(client: OpenAI) -> None:
    choice = echoed(client, [THE, DOG], max_tokens=8, logprobs=1).choices[0]
    result = choice.logprobs
    assert choice.text == " the dog ran."
    assert result.tokens == [" the", " dog", " ran", ".", ""]
    assert result.text_offset == [0, 4, 8, 12, 13]
    assert result.token_logprobs[2:] == pytest.approx([math.log(4 / 5), 0, 0], abs=1e-5)


@pytest.mark.parametrize("model", ["cat", "slowly"])
@pytest.mark.parametrize("more", [{"max_tokens": 1}, {"max_tokens": 0}, {}, {"n": 2}], ids=str)
def test_a_streamed_score_is_the_whole_one(
    client: OpenAI, model: str, more: dict[str, Any]
) -> None:
    params: dict[str, Any] = {"logprobs": 2, "seed": 3, **more}
    whole = echoed(client, [" the", "<bos> the dog"], model, **params)
    result: list[dict[str, list[Any]]] = [{key: [] for key in KEYS} for _ in whole.choices]
    texts = ["" for _ in whole.choices]
    for chunk in echoed(client, [" the", "<bos> the dog"], model, stream=True, **params):
        [choice] = chunk.choices
        texts[choice.index] += choice.text
        for key in KEYS if choice.logprobs else ():
            result[choice.index][key] += getattr(choice.logprobs, key)
    assert texts == [choice.text for choice in whole.choices]
    assert result == [choice.logprobs.model_dump() for choice in whole.choices]


def test_a_score_is_in_the_accounts_once(client: OpenAI) -> None:
    reply = echoed(client, [THE, CATS], max_tokens=1, logprobs=1)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (2, 1)
    assert reply.ensemble["usage"]["model_calls"] == 2
    budget = {"ensemble": {"budget": {"calls": 1}}}
    spent = echoed(client, [THE, CATS], max_tokens=1, logprobs=1, extra_body=budget)
    assert spent.ensemble["stop_reason"] == "budget_calls"
    assert len(spent.choices[0].logprobs.tokens) == 3, "the place of the generated token stays"


def test_a_prompt_may_fill_the_window_when_nothing_is_written(client: OpenAI) -> None:
    full = [THE, CATS, SAT, DOT] * 2
    reply = echoed(client, full, "short", max_tokens=0, logprobs=1)
    assert len(reply.choices[0].logprobs.tokens) == 8
    for prompt, limit in ((full, 1), ([*full, THE], 0)):
        with pytest.raises(BadRequestError) as caught:
            echoed(client, prompt, "short", max_tokens=limit, logprobs=1)
        assert caught.value.code == "context_length_exceeded"


def test_what_cannot_be_scored_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="gives no token a probability") as caught:
        harness(client, " the", model="pets")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "echo")
    with pytest.raises(BadRequestError, match="max_tokens 0 generates nothing") as caught:
        client.completions.create(model="cat", prompt=" the", max_tokens=0)
    assert caught.value.param == "max_tokens"
    with pytest.raises(BadRequestError, match="outside the vocabulary"):
        harness(client, [THE, 999])
