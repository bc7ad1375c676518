"""Texts scored under a fused distribution."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runtime.errors import BadRequest
from runtime.types.events import Scored
from runtime.types.query import Query
from runtime.types.spans import TokenChoice
from tests.support.local_stack import CAT, animals, running


async def scored(
    config: dict[str, Any], model: str, prompt: str, **fields: Any
) -> list[TokenChoice]:
    async with running(config) as stack:
        query = Query("t", model, prompt=prompt, score_prompt=True, max_tokens=0, **fields)
        events = [event async for event in stack.models[model].answer(query)]
    assert isinstance(events[0], Scored)
    return list(events[0].tokens)


async def test_gac_scores_by_the_mean_of_what_members_say() -> None:
    config = animals(gac={"type": "gac"})
    tokens = await scored(config, "gac", " the dog ran", logprobs=1)
    assert [token.data for token in tokens] == [b" the", b" dog", b" ran"]
    shares = [math.exp(token.logprob or 0) for token in tokens]
    # The first vocabulary has all three as tokens; the second spells them " t" "he" and so on, and
    # gives those tokens nothing: 1 / 2, 0.4 / 2, 0.8 / 2, but for what is left to other tokens.
    assert shares == pytest.approx([0.5, 0.2, 0.4], abs=0.01)
    assert tokens[1].top[0][0] == b" do"  # the second's 0.9 halved is the true maximum
    assert tokens[1].choices == {"cat": b" cat", "dog": b" do"}


@pytest.mark.parametrize("method", ["gac", "unite", "packllm", "deepen"])
async def test_identical_members_score_as_the_model_alone(method: str) -> None:
    names = ["a", "b"]
    config = {
        "members": {name: {"engine": CAT} for name in names},
        "ensembles": {"m": {"type": method, "members": names, "top_k": "all"}},
    }
    text = " the cat sat. the dog ran."
    fused = await scored(config, "m", text)
    alone = await scored(config, "a", text)
    assert [token.data for token in fused] == [token.data for token in alone]
    if method in ("gac",):  # the others share out probability among their candidates only
        for one, other in zip(fused, alone, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-5)
    likely = [i for i, token in enumerate(alone) if (token.logprob or 0) > -3]
    for i in likely:
        assert fused[i].logprob == pytest.approx(alone[i].logprob, abs=0.02)


async def test_a_text_that_is_written_is_scored_as_it_was_chosen() -> None:
    config = animals(unite={"type": "unite", "k": 3})
    async with running(config) as stack:
        query = Query("t", "unite", prompt="", max_tokens=20, logprobs=0)
        events = [event async for event in stack.models["unite"].answer(query)]
    spans = [e.span for e in events if getattr(e, "span", None) is not None]
    chosen = [token for span in spans for token in span.tokens if token.data]
    text = b"".join(token.data for token in chosen).decode()
    result = await scored(config, "unite", text, logprobs=0)
    assert [token.data for token in result] == [token.data for token in chosen]
    for one, other in zip(result, chosen, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-6)


async def test_control_tokens_inside_a_text_are_refused_with_the_reason() -> None:
    with pytest.raises(BadRequest, match="control token"):
        await scored(animals(gac={"type": "gac"}), "gac", " the<eos> dog")


async def test_ids_are_scored_as_they_were_sent() -> None:
    config = animals(gac={"type": "gac"})
    tokens = await scored(config, "gac", " the dog", prompt_ids=(0, 2))
    assert [token.data for token in tokens] == [b" the", b" dog"]
    assert tokens[0].logprob is None  # nothing stands before it
    assert math.exp(tokens[1].logprob or 0) == pytest.approx(0.2, abs=0.01)


async def test_packllm_over_deepen_writes_in_the_first_members_tokens() -> None:
    fields = {"type": "packllm", "fusion": "deepen", "reporting_member": "dog"}
    with pytest.raises(BadRequest, match="reporting_member"):
        await scored(animals(m=fields), "m", " the dog")


async def test_scoring_in_anothers_tokens_than_the_method_writes_is_refused() -> None:
    config = animals(deepen={"type": "deepen", "main": "dog"})
    with pytest.raises(BadRequest, match="reporting_member"):
        await scored(config, "deepen", " the dog")


async def test_abe_says_why_it_cannot_score() -> None:
    with pytest.raises(BadRequest, match="share none"):
        await scored(animals(abe={"type": "abe"}), "abe", " the dog")
