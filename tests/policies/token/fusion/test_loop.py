"""The loop on table models: drafted and plain write the same text, whatever happens."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from policies.token.fusion import request
from policies.token.fusion.draft_scheduler import DraftScheduler
from policies.token.fusion.loop import TokenPolicy
from runtime.config.engines import TableEngine
from runtime.engines.scripted.models import TableLM
from runtime.errors import QuorumLost
from tests.support.local_stack import CAT, DOG, animals, answers, ask, running
from tests.support.models.fusion_methods import METHODS

NARROW: dict[str, dict[str, Any]] = {
    "gac": {"type": "gac", "top_k": 2},
    "gated": {"type": "gac", "gate": "cat", "threshold": 0.7, "top_k": 1},
    "unite": {"type": "unite", "k": 2, "top_k": 2},
    "packllm": {"type": "packllm", "k": 2, "top_k": 2},
    "packllm-sim": {"type": "packllm", "weighting": "sim", "fusion": "unite", "k": 1, "top_k": 1},
    "deepen": {"type": "deepen", "k": 2, "top_k": 2},
    "eva": {"type": "eva", "top_k": 2},
}
"""Rows of so few tokens that other members' are asked for by name."""


def pairs(methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every method plain and drafted."""
    plain = {f"{name}-0": {**fields, "draft": 0} for name, fields in methods.items()}
    return methods | plain


WISHES: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.5, "ignore_eos": True},
    {"stop": ("at",)},
    {"ignore_eos": True},
]


@pytest.mark.parametrize("method", METHODS)
async def test_drafted_writes_what_the_plain_loop_writes(method: str) -> None:
    async with running(animals(**pairs(METHODS))) as stack:
        await both_alike(stack, method, seeds=6, limits=(1, 7, 24))


@pytest.mark.parametrize("method", NARROW)
async def test_they_write_alike_from_rows_that_are_cut(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    async with running(animals(**pairs(NARROW))) as stack:
        for small in (4096, 4096, 0):  # the first answer asks for embeddings too
            monkeypatch.setattr(request, "SMALL_VOCABULARY", small)
            answer = await ask(stack, f"{method}-0", max_tokens=6, ignore_eos=True)
            calls.append(answer.summary["usage"]["model_calls"])
        looks_up = method not in ("gac", "gated", "eva")
        assert (calls[2] > calls[1]) == looks_up, "whether tokens were asked for by name"
        await both_alike(stack, method, seeds=3, limits=(24,))


async def both_alike(
    stack: LocalStack, method: str, *, seeds: int, limits: tuple[int, ...]
) -> None:
    for sampling in WISHES:
        for seed in range(seeds if sampling.get("temperature") else 1):
            for limit in limits:
                more = {**sampling, "seed": seed, "max_tokens": limit}
                drafted = await ask(stack, method, **more)
                plain = await ask(stack, f"{method}-0", **more)
                assert drafted.text == plain.text, more
                assert drafted.end.stop_reason == plain.end.stop_reason
                assert drafted.end.completion_tokens == plain.end.completion_tokens


async def test_drafting_saves_calls() -> None:
    """Every round takes one second, so the plan of the most tokens per round wins."""
    async with running(animals(**pairs(METHODS))) as stack:
        ticks = itertools.count()
        policy = stack.models["unite"].policy
        assert isinstance(policy, TokenPolicy)
        policy.scheduler = DraftScheduler(clock=lambda: float(next(ticks)))
        calls = {}
        for name in ("unite", "unite-0"):
            for _ in range(8):  # the first rounds try every plan
                answer = await ask(stack, name, max_tokens=20)
            calls[name] = answer.summary["usage"]["model_calls"]
    assert calls["unite-0"] == 10  # two members, five tokens
    assert calls["unite"] <= 6
    assert policy.scheduler.speeds(), "rounds were timed"


@pytest.mark.parametrize("method", ["gac", "unite", "packllm", "deepen", "eva", "abe"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_identical_members_and_one_alone_write_what_the_model_writes(
    method: str, temperature: float
) -> None:
    """Sampled: what one member of the same method draws, since a single model draws otherwise."""
    names = ["a", "b", "c"]
    config = {
        "members": {name: {"engine": CAT} for name in names},
        "ensembles": {
            "three": {"type": method, "members": names},
            "one": {"type": method, "members": ["a"]},
        },
    }
    async with running(config) as stack:
        for seed in range(4):
            sampling = {"temperature": temperature, "seed": seed, "max_tokens": 12}
            texts = {name: (await ask(stack, name, **sampling)).text for name in ("three", "one")}
            if temperature == 0:
                texts["model"] = (await ask(stack, "a", **sampling)).text
            if method == "abe" and temperature:  # each of them draws for itself
                continue
            assert len(set(texts.values())) == 1, texts


async def test_tokens_are_reported_with_weights_and_each_members_choice() -> None:
    config = animals(gac={"type": "gac", "weights": {"cat": 3.0}})
    answer = await answers(config, "gac", max_tokens=20, trace="full", logprobs=2)
    spans = [written.span for written in answer.written if written.span is not None]
    tokens = [token for span in spans for token in span.tokens]
    assert b"".join(token.data for token in tokens).decode() == answer.text
    assert tokens[0].data == b" the" and tokens[0].choices == {"cat": b" the", "dog": b" t"}
    assert tokens[0].weights == {"cat": 0.75, "dog": 0.25}
    # " the" 1 x 0.75, " t" 1 x 0.25, but for what the tables leave to other tokens
    assert [data for data, _ in tokens[0].top] == [b" the", b" t"]
    assert tokens[0].logprob == tokens[0].top[0][1]
    assert tokens[0].logprob == pytest.approx(-0.28768, abs=0.01)
    rounds = answer.summary["full"]["rounds"]
    assert rounds[0]["tokens"][0]["choices"] == {"cat": " the", "dog": " t"}
    assert rounds[0]["tokens"][0]["weights"] == {"cat": 0.75, "dog": 0.25}


@pytest.mark.parametrize("method", ["gac", "unite", "packllm-sim", "gated", "deepen"])
@pytest.mark.parametrize("fails_from", [1, 2, 3, 5])
async def test_a_member_that_fails_is_dropped_and_the_others_go_on(
    method: str, fails_from: int
) -> None:
    for which in ("cat", "dog"):
        config = animals(m=METHODS[method])
        engine = config["members"][which]["engine"]
        config["members"][which] = {
            "engine": {"type": "flaky", "engine": engine, "fails_from": fails_from},
            "retries": 0,
        }
        answer = await answers(config, "m", max_tokens=20)
        assert answer.text.startswith(" the ")
        assert answer.end.stop_reason in ("eos", "length")
        dropped = answer.member(which)["status"] == "dropped"
        if method != "deepen":  # it has sent its embeddings before the request came
            assert dropped == (answer.member(which)["calls"] >= fails_from)
        assert dropped or fails_from > 1


@pytest.mark.parametrize("method", ["deepen", "eva"])
@pytest.mark.parametrize("fails_from", [1, 2, 3])
async def test_a_member_that_fails_while_it_sends_its_embeddings_is_dropped(
    method: str, fails_from: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRION_CACHE", str(tmp_path))
    config = animals(m=METHODS[method])
    config["members"]["dog"] = {
        "engine": {"type": "flaky", "engine": DOG, "fails_from": fails_from},
        "retries": 0,
    }
    answer = await answers(config, "m", max_tokens=20)
    assert answer.text == " the cat sat."
    assert answer.member("dog")["status"] == "dropped"


async def test_a_quorum_that_is_lost_ends_the_answer() -> None:
    config = animals(m={"type": "gac", "quorum": 2})
    config["members"]["dog"] = {
        "engine": {"type": "flaky", "engine": DOG, "fails_from": 2},
        "retries": 0,
    }
    with pytest.raises(QuorumLost):
        await answers(config, "m", max_tokens=20)


async def test_a_window_that_is_full_ends_both_loops_at_the_same_text() -> None:
    methods = ("gac", "unite", "unite-narrow", "gated")
    config = animals(**pairs({method: METHODS[method] for method in methods}))
    config["members"]["dog"] = {"engine": {**DOG, "context_length": 40}}
    async with running(config) as stack:
        for method in methods:
            drafted = await ask(stack, method, max_tokens=60, ignore_eos=True)
            plain = await ask(stack, f"{method}-0", max_tokens=60, ignore_eos=True)
            assert drafted.text == plain.text
            assert drafted.end.stop_reason == plain.end.stop_reason == "context"


async def test_members_without_any_say_are_not_called() -> None:
    config = animals(m={"type": "gac", "weights": {"dog": 0.0}})
    answer = await answers(config, "m", max_tokens=20)
    assert answer.text == " the cat sat."
    assert answer.member("dog")["calls"] == 0


@pytest.mark.parametrize("weighting", ["sim", "opt"])
async def test_a_prompt_of_one_token_weighs_members_without_bos_like_the_others(
    weighting: str,
) -> None:
    dog = TableLM(TableEngine(**DOG))
    bare = replace(dog.spec.tokenizer, add_bos=False)
    dog._spec = replace(dog.spec, tokenizer=bare)
    config = animals(m={"type": "packllm", "weighting": weighting})
    stack = LocalStack(AppConfig.model_validate(config), {"dog": dog})
    weights = {}
    for prompt in (".", " the dog"):
        answer = await ask(stack, "m", prompt=prompt, messages=(), max_tokens=4, trace="full")
        weights[prompt] = answer.summary["full"]["state"]["weights"]
    await stack.close()
    assert weights["."]["cat"] == weights["."]["dog"] > 0
    assert weights[" the dog"]["dog"] > weights[" the dog"]["cat"]


async def test_a_sure_gate_spares_the_others() -> None:
    config = animals(gated={"type": "gac", "gate": "cat", "threshold": 0.7})
    answer = await answers(config, "gated", max_tokens=20)
    # cat: the 1, cat 0.6 (the sum: 0.6 + 0 against 0 + 0.9), dog, ran 0.8, . 1
    assert answer.text.startswith(" the")
    assert answer.member("dog")["calls"] < answer.member("cat")["calls"] + 2
    alone = animals(gated={"type": "gac", "gate": "cat", "threshold": 0.01})
    answer = await answers(alone, "gated", max_tokens=20)
    assert answer.text == " the cat sat." and answer.member("dog")["calls"] == 0


async def test_safe_is_cheaper_and_says_what_it_is() -> None:
    config = animals(safe={"type": "gac", "safe": {}}, plain={"type": "gac"})
    async with running(config) as stack:
        safe = await ask(stack, "safe", max_tokens=20, trace="full")
        plain = await ask(stack, "plain", max_tokens=20, trace="full")
    fused = {
        n: a.summary["full"]["state"]["counts"]["fused"] for n, a in (("s", safe), ("p", plain))
    }
    assert fused["s"] <= fused["p"]
    assert safe.summary["method"] == "gac+safe"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "gac", "weights": {"cow": 1.0}}, "'cow' is not among the members"),
        ({"type": "gac", "weights": {"cat": -1.0}}, "at least 0"),
        ({"type": "gac", "weights": {"cat": 0, "dog": 0}}, "above 0"),
        ({"type": "gac", "gate": "cow"}, "gate: 'cow'"),
        ({"type": "gac", "gate": "cat", "safe": {}}, "leave one out"),
        ({"type": "unite", "drafter": "cow"}, "drafter: 'cow'"),
        ({"type": "unite", "top_k": 0}, "top_k"),
        ({"type": "unite", "k": 5, "top_k": 4}, "at least k"),
        ({"type": "unite", "drafter": "cat", "weights": {"cat": 0}}, "never called"),
        ({"type": "deepen", "weights": {"cat": 0}}, "never called"),
        ({"type": "abe", "weights": {"cat": 0}}, "above 0"),
        ({"type": "deepen", "main": "cow"}, "main: 'cow'"),
        ({"type": "eva", "pivot": "cow"}, "pivot: 'cow'"),
        ({"type": "abe", "weights": {"cow": 1.0}}, "weights: 'cow'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        AppConfig.model_validate(animals(m=fields))
