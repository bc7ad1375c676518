"""What every ensemble owes the openai package."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.deployments.http.openai.contract import ASK, Contract, chat, gathered
from tests.support.http.openapi_conformance import assert_no_extras


def test_an_answer_has_every_field_that_clients_read(client: OpenAI, contract: Contract) -> None:
    answer = chat(client, contract)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == contract.model
    assert answer.id == f"chatcmpl-{answer.model_extra['ensemble']['trace_id']}"
    assert answer.system_fingerprint.startswith("ens_")
    assert choice.index == 0 and choice.finish_reason in ("stop", "length")
    assert choice.message.role == "assistant" and choice.message.content
    assert {"logprobs", "index", "finish_reason"} <= choice.model_fields_set
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    assert answer._request_id


def test_the_summary_says_who_wrote_which_characters(client: OpenAI, contract: Contract) -> None:
    answer = chat(client, contract)
    summary = answer.model_extra["ensemble"]
    spans = summary["spans"]
    assert spans[0]["start"] == 0 and spans[-1]["end"] == len(answer.choices[0].message.content)
    assert all(a["end"] == b["start"] for a, b in zip(spans, spans[1:], strict=False))
    assert {span["model"] for span in spans} <= set(contract.members)
    assert summary["latency_ms"]["total"] >= summary["latency_ms"]["ttft"] >= 0
    assert summary["ignored_params"] == [] and summary["seed"] == 7


def test_n_answers_are_those_of_consecutive_seeds(client: OpenAI, contract: Contract) -> None:
    both = chat(client, contract, n=2)
    single = [chat(client, contract, seed=7 + i) for i in range(2)]
    assert [choice.index for choice in both.choices] == [0, 1]
    assert [c.message.content for c in both.choices] == [
        answer.choices[0].message.content for answer in single
    ]
    assert both.usage.prompt_tokens == single[0].usage.prompt_tokens
    assert both.usage.completion_tokens == sum(a.usage.completion_tokens for a in single)
    parts = both.model_extra["ensemble"]["choices"]
    assert [part["spans"] for part in parts] == [a.ensemble["spans"] for a in single]
    calls = [part["usage"]["model_calls"] for part in parts]
    assert both.model_extra["ensemble"]["usage"]["model_calls"] == sum(calls)


def test_a_stop_string_across_a_span_border_ends_the_text_before_it(
    client: OpenAI, contract: Contract
) -> None:
    answer = chat(client, contract)
    text, spans = answer.choices[0].message.content, answer.ensemble["spans"]
    border = spans[1]["end"]
    stop = text[border - 3 : border + 3]
    cut = chat(client, contract, stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    streamed, reason, *_ = gathered(chat(client, contract, stop=stop, stream=True))
    assert (streamed, reason) == (cut.choices[0].message.content, "stop")


@pytest.mark.parametrize("stop", [[], None])
def test_no_stop_strings_may_be_said_in_two_ways(
    client: OpenAI, contract: Contract, stop: Any
) -> None:
    plain = chat(client, contract).choices[0].message.content
    assert chat(client, contract, stop=stop).choices[0].message.content == plain


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_ends_the_answer_for_its_length(
    client: OpenAI, contract: Contract, name: str
) -> None:
    answer = chat(client, contract, **{name: 4})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens <= 4


def test_a_seed_that_was_not_given_is_reported_and_can_be_used_again(
    client: OpenAI, contract: Contract
) -> None:
    first = chat(client, contract, seed=None)
    again = chat(client, contract, seed=first.ensemble["seed"])
    assert again.choices[0].message.content == first.choices[0].message.content


def test_models_are_listed_and_retrieved(client: OpenAI, contract: Contract) -> None:
    listed = client.models.list().data
    assert listed[0].id == contract.model
    assert contract.other_model in [model.id for model in listed]
    model = client.models.retrieve(contract.model)
    assert (model.id, model.object) == (contract.model, "model")
    assert model.created and model.owned_by
    assert model.model_extra["ensemble"]["members"] == list(contract.members)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such/model")


def test_an_unknown_model_is_not_found(client: OpenAI, contract: Contract) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, contract, model="nobody")
    assert caught.value.code == "model_not_found" and contract.model in caught.value.message
    assert caught.value.request_id


def test_what_cannot_be_done_is_refused(client: OpenAI, contract: Contract) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, contract, logprobs=True)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "logprobs")


def test_a_subset_of_the_members_can_be_called(client: OpenAI, contract: Contract) -> None:
    answer = chat(client, contract, extra_body={"ensemble": {"members": [contract.members[1]]}})
    assert {span["model"] for span in answer.ensemble["spans"]} == {contract.members[1]}


@pytest.mark.parametrize("stream", [False, True])
def test_without_trace_the_reply_is_openais_alone(
    client: OpenAI, contract: Contract, stream: bool
) -> None:
    extra = {"ensemble": {"trace": "none"}}
    reply = chat(client, contract, stream=stream, extra_body=extra)
    for item in list(reply) if stream else [reply]:
        form = ChatCompletionChunk if stream else ChatCompletion
        strict = form.model_validate(item.model_dump(exclude_unset=True), strict=True)
        assert_no_extras(strict)


def test_the_full_trace_shows_more_than_the_summary(client: OpenAI, contract: Contract) -> None:
    full = chat(client, contract, extra_body={"ensemble": {"trace": "full"}}).ensemble
    summary = chat(client, contract).ensemble
    assert "full" not in summary
    assert set(full) == {*summary, "full"}


def test_four_forms_of_prompt_are_completed(client: OpenAI, contract: Contract) -> None:
    def complete(prompt: Any, n: int = 1) -> Completion:
        return client.completions.create(model=contract.model, prompt=prompt, seed=7, n=n)

    text, ids = contract.token_text, list(contract.token_ids)
    one = complete(text)
    assert one.object == "text_completion" and one.id.startswith("cmpl-")
    written = one.choices[0].text
    assert written
    assert [c.text for c in complete([text, text]).choices] == [written] * 2
    assert complete(ids).choices[0].text == written
    assert [c.text for c in complete([ids, ids]).choices] == [written] * 2
    twice = complete(text, n=2)
    batch = complete([text, text], n=2)
    assert [c.index for c in batch.choices] == [0, 1, 2, 3]
    assert [c.text for c in batch.choices] == [c.text for c in twice.choices] * 2
    assert batch.usage.prompt_tokens == 2 * one.usage.prompt_tokens


def test_the_trace_can_be_fetched_by_the_id_of_the_reply(
    client: OpenAI, contract: Contract
) -> None:
    answer = chat(client, contract)
    raw = client.chat.completions.with_raw_response.create(model=contract.model, messages=ASK)
    for id in (answer.id, raw.headers["x-ensemble-trace-id"]):
        with urllib.request.urlopen(f"{contract.url}/v1/traces/{id}") as reply:
            assert json.load(reply)["ensemble"]["method"] == raw.headers["x-ensemble-method"]
