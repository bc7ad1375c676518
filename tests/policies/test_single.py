"""One member alone: its text, its tokens' probabilities, and its score of a given text."""

from __future__ import annotations

import math
from typing import Any

import pytest

from deployments.launch.in_process import LocalStack
from runtime.errors import BadRequest
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.events import Scored
from runtime.types.query import Budget, Message, Query
from runtime.types.spans import TokenChoice
from tests.support.local_stack import CAT, animals, answers, ask, running

ECHO = {"members": {"echo": {"engine": {"type": "echo"}}}}


def tokens_of(answer: Any) -> list[TokenChoice]:
    return [t for written in answer.written if written.span for t in written.span.tokens]


def words(tokens: list[TokenChoice]) -> list[bytes]:
    return [token.data for token in tokens]


async def scored(stack: LocalStack, model: str, **fields: Any) -> tuple[list[TokenChoice], Any]:
    """The prompt's tokens, and the summary."""
    query = Query(id="t", model=model, score_prompt=True, **{"max_tokens": 0, **fields})
    events = [event async for event in stack.models[model].answer(query)]
    assert isinstance(events[0], Scored)
    assert not any(isinstance(event, Scored) for event in events[1:])
    return list(events[0].tokens), events[-1]


async def test_tokens_have_the_tables_probabilities_and_the_end_comes_last() -> None:
    answer = await answers(animals(), "cat", logprobs=2)
    tokens = tokens_of(answer)
    assert words(tokens) == [b" the", b" cat", b" sat", b".", b""]
    assert [token.logprob for token in tokens] == pytest.approx(
        [0, math.log(3 / 5), math.log(4 / 5), 0, 0], abs=1e-5
    )
    assert [data for data, _ in tokens[1].top] == [b" cat", b" dog"]
    assert tokens[1].top[1][1] == pytest.approx(math.log(2 / 5), abs=1e-5)
    assert all(token.top[0] == (token.data, token.logprob) for token in tokens)


async def test_nobody_who_does_not_ask_is_sent_tokens() -> None:
    answer = await answers(animals(), "cat")
    assert tokens_of(answer) == []
    plain = await answers(animals(), "cat", logprobs=0)
    assert plain.text == answer.text and [t.top for t in tokens_of(plain)] == [()] * 5


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
@pytest.mark.parametrize("temperature", [0, 1])
async def test_chunks_change_neither_text_nor_tokens(chunk: int, temperature: float) -> None:
    async def written(chunk_tokens: int) -> tuple[str, list[TokenChoice]]:
        method = {"type": "single", "members": ["echo"], "chunk_tokens": chunk_tokens}
        config = {**ECHO, "ensembles": {"e": method}}
        fields = {"logprobs": 3, "temperature": temperature, "seed": 4, "max_tokens": 9}
        answer = await answers(config, "e", **fields)
        return answer.text, tokens_of(answer)

    assert await written(chunk) == await written(100)


async def test_tokens_of_one_character_are_reported_with_their_own_bytes() -> None:
    answer = await answers(ECHO, "echo", messages=(Message("user", "naïve €"),), logprobs=1)
    assert answer.text == "naïve €"
    assert words(tokens_of(answer)) == [*(bytes([b]) for b in "naïve €".encode()), b""]
    for written in answer.written:
        assert written.span is not None
        assert b"".join(words(list(written.span.tokens))).decode() == written.span.text


async def test_a_token_that_a_stop_string_goes_through_is_left_out() -> None:
    answer = await answers(animals(), "cat", logprobs=1, stop=("t s",))
    assert answer.text == " the ca"
    assert words(tokens_of(answer)) == [b" the"]


async def test_tokens_beyond_the_limit_are_left_out_and_so_is_the_end() -> None:
    answer = await answers(animals(), "cat", logprobs=1, max_tokens=3)
    assert answer.text == " the cat sat" and answer.end.finish_reason == "length"
    assert words(tokens_of(answer)) == [b" the", b" cat", b" sat"]


async def test_a_member_that_dies_leaves_its_tokens_and_the_next_goes_on() -> None:
    config = animals(e={"type": "single", "chunk_tokens": 2})
    flaky = {"type": "flaky", "engine": CAT, "fails_from": 2}
    config["members"]["cat"] = {"engine": flaky, "retries": 0}
    answer = await answers(config, "e", logprobs=1)
    assert answer.summary["degraded"]
    tokens = tokens_of(answer)
    assert words(tokens)[:4] == [b" the", b" cat", b" sa", b"t"], "the second half is the dog's"
    assert b"".join(words(tokens)).decode() == answer.text


async def test_a_prompt_is_scored_as_the_table_says() -> None:
    async with running(animals()) as stack:
        tokens, end = await scored(stack, "cat", prompt=" the dog ran.", logprobs=2)
    assert words(tokens) == [b" the", b" dog", b" ran", b"."]
    expected = [0, math.log(2 / 5), math.log(4 / 5), 0]
    assert [token.logprob for token in tokens] == pytest.approx(expected, abs=1e-5)
    assert [data for data, _ in tokens[1].top] == [b" cat", b" dog"]
    assert tokens[1].top[1] == (b" dog", tokens[1].logprob)
    assert (end.finish_reason, end.completion_tokens) == ("length", 0)
    usage = end.summary["usage"]
    assert (usage["model_calls"], usage["prompt_tokens"]) == (1, 5), "the BOS is read too"


async def test_ids_are_scored_as_they_were_sent() -> None:
    async with running(animals()) as stack:
        tokenizer = Tokenizer(stack.engines["cat"].spec.tokenizer)
        # Not what the tokenizer writes for the text: " the" letter by letter, and a BOS within.
        bos = tokenizer.token_id("<bos>")
        assert bos is not None
        spelled = [6 + byte for byte in b" the"]
        ids = (bos, *spelled, 1, bos, 3)
        text = await stack.models["cat"].decode(ids)
        tokens, end = await scored(stack, "cat", prompt=text, prompt_ids=ids, logprobs=1)
    assert words(tokens) == [b"", b" ", b"t", b"h", b"e", b" cat", b"", b" sat"]
    assert tokens[0].logprob is None and end.prompt_tokens == len(ids)
    assert tokens[5].logprob == pytest.approx(math.log(3 / 5), abs=1e-5)
    assert tokens[6].logprob == pytest.approx(math.log(1e-6 / 262), abs=1e-4)
    assert tokens[7].logprob == pytest.approx(math.log(4 / 5), abs=1e-5)


async def test_one_id_has_nothing_before_it_and_costs_no_call() -> None:
    async with running(animals()) as stack:
        tokens, end = await scored(stack, "cat", prompt=" the", prompt_ids=(0,), logprobs=1)
    assert [(token.data, token.logprob) for token in tokens] == [(b" the", None)]
    assert end.summary["usage"]["model_calls"] == 0


async def test_a_score_that_fails_is_the_next_members() -> None:
    config = animals(e={"type": "single"})
    flaky = {"type": "flaky", "engine": CAT, "fails_from": 1}
    config["members"]["cat"] = {"engine": flaky, "retries": 0}
    async with running(config) as stack:
        tokens, _ = await scored(stack, "e", prompt=" the dog ran.", logprobs=1)
        assert words(tokens) == [b" t", b"he", b" do", b"g", b" ra", b"n", b"."]
        with pytest.raises(BadRequest, match="token ids of 'cat'"):
            await scored(stack, "e", prompt=" the", prompt_ids=(0, 1), logprobs=1)


async def test_a_score_is_paid_from_the_budget_of_the_answer() -> None:
    async with running(animals()) as stack:
        fields: dict[str, Any] = {"prompt": " the", "logprobs": 1, "max_tokens": 8}
        _, end = await scored(stack, "cat", **fields, budget=Budget(calls=1))
        assert (end.stop_reason, end.summary["usage"]["model_calls"]) == ("budget_calls", 1)
        _, end = await scored(stack, "cat", **fields)
        assert (end.stop_reason, end.summary["usage"]["model_calls"]) == ("eos", 2)
        with pytest.raises(BadRequest, match="no score"):
            await scored(stack, "cat", **fields, budget=Budget(seconds=0.0))


async def test_methods_that_choose_spans_say_why_they_cannot_score() -> None:
    async with running(animals(e={"type": "sweetspan"})) as stack:
        with pytest.raises(BadRequest, match="no token a probability"):
            await scored(stack, "e", prompt=" the", logprobs=1)
        card = await stack.models["e"].card()
        assert not card["supports"]["logprobs"] and not card["supports"]["echo"]
        card = await stack.models["cat"].card()
        assert card["supports"]["logprobs"] and card["supports"]["echo"]


async def test_an_answer_that_goes_on_elsewhere_is_not_scored_again() -> None:
    async with running(animals()) as stack:
        fields: dict[str, Any] = {"prompt": " the", "logprobs": 1, "score_prompt": True}
        query = Query(id="t", model="cat", **fields)
        events = [event async for event in stack.models["cat"].answer(query)]
        assert isinstance(events[0], Scored)
        rest = await ask(stack, "cat", events[0].checkpoint, messages=(), **fields)
        assert rest.text == " cat sat." and rest.summary["usage"]["model_calls"] == 2
