"""Token-level routing on table models, whose engines cannot defer by themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from runtime.errors import ConfigError
from runtime.types.events import Checkpoint, Written
from runtime.types.query import Budget
from tests.support.local_stack import CAT, DOG, Answer, animals, ask, running
from tests.support.models.deferral_pair import NAMES, by, config


def calls(answer: Answer, name: str) -> int:
    return int(answer.member(name)["calls"])


async def test_the_large_member_writes_where_the_small_is_unsure() -> None:
    async with running(config(m=by("margin", 0.5))) as stack:
        answer = await ask(stack, "m")
        # Margins: the 0.98, cat 0.02, dog 0, ran 0.2 short of 0.5, ...
        assert answer.text == " the dog ran."
        authors = "".join(s.span.author[0] * len(s.span.text) for s in answer.written if s.span)
        assert authors == "ssss" + "llll" + "llll" + "l"
        summary = answer.summary
        assert summary["tokens"] == {"small": 2, "large": 3}
        assert summary["by"] == "margin" and summary["threshold"] == 0.5


@pytest.mark.parametrize("signal", ["margin", "entropy", "random"])
@pytest.mark.parametrize(
    "params", [{}, {"temperature": 1.0, "ignore_eos": True}, {"stop": ("an",)}]
)
async def test_what_is_written_ahead_changes_calls_and_not_the_text(
    signal: str, params: dict[str, Any]
) -> None:
    ways = [{"ahead": 0, "chunk_tokens": 1}, {"ahead": 0}, {"ahead": 5}, {"chunk_tokens": 2}]
    ensembles = {f"m{i}": by(signal, 0.55, **way) for i, way in enumerate(ways)}
    async with running(config(**ensembles)) as stack:
        answers = [await ask(stack, name, seed=3, max_tokens=14, **params) for name in ensembles]
    assert len({answer.text for answer in answers}) == 1
    assert calls(answers[2], "large") <= calls(answers[1], "large")
    assert len({json.dumps(answer.summary["tokens"]) for answer in answers}) == 1


@pytest.mark.parametrize(("mark", "written"), [("\n", 2), (" the", 4)])
async def test_the_large_member_writes_ahead_to_the_end_of_its_line(
    mark: str, written: int
) -> None:
    """The deferred token depends on ``" sat"`` alone; the line ends, or does not, after it."""
    words = [" dog", mark, " ran", "."]
    table = {"": {" sat": 1}, " sat": {" dog": 1}, ".": {"<eos>": 1}}
    table |= {before: {after: 1} for before, after in zip(words, words[1:], strict=False)}
    large = {"type": "table", "vocabulary": [" sat", *words], "table": table}
    unsure = {"type": "table", "vocabulary": [" sat", *words]}
    small = {**unsure, "table": {**table, " sat": {" dog": 51, " ran": 49}}}
    setting = {
        "members": {"small": {"engine": small}, "large": {"engine": large}},
        "ensembles": {"m": {"members": NAMES, **by("margin", 0.5, ahead=3)}},
    }
    async with running(setting) as stack:
        answer = await ask(stack, "m")
    assert answer.text == f" sat dog{mark} ran."
    assert answer.summary["tokens"] == {"small": 5, "large": 1}
    assert calls(answer, "large") == 1
    assert answer.member("large")["completion_tokens"] == written


async def test_a_threshold_of_the_request_sweeps_from_one_member_to_the_other() -> None:
    async with running(config(m=by("margin", 0.5))) as stack:
        alone = {name: (await ask(stack, name)).text for name in NAMES}
        assert (await ask(stack, "m", threshold=0.0)).text == alone["small"]
        whole = await ask(stack, "m", threshold=1.0)
        assert whole.text == alone["large"] and whole.summary["tokens"]["small"] == 0


async def test_members_of_two_vocabularies_are_refused() -> None:
    ensemble = {"type": "uncertainty", "members": ["cat", "dog"]}
    setting = {
        "members": {"cat": {"engine": CAT}, "dog": {"engine": DOG}},
        "ensembles": {"m": ensemble},
    }
    async with running(setting) as stack:
        with pytest.raises(ConfigError, match="do not share a tokenizer.*gac, unite or deepen"):
            await ask(stack, "m")


def test_a_pair_is_two_members() -> None:
    with pytest.raises(ValueError, match="a small and a large one, got 1"):
        AppConfig.model_validate(animals(m={"type": "uncertainty", "members": ["cat"]}))
    with pytest.raises(ValueError, match="small and large are both"):
        AppConfig.model_validate(animals(m={"type": "uncertainty", "small": "cat", "large": "cat"}))
    swapped = AppConfig.model_validate(config(m=by("margin", 0.5, large="small")))
    assert swapped.ensembles["m"].pair == ("large", "small")  # type: ignore[attr-defined]


@pytest.mark.parametrize("lost", NAMES)
async def test_when_a_member_is_lost_the_other_continues(lost: str) -> None:
    setting = config(m=by("margin", 0.5, chunk_tokens=1, ahead=0))
    members = setting["members"]
    engine = members[lost]["engine"]
    members[lost] |= {"engine": {"type": "flaky", "engine": engine, "fails_from": 2}, "retries": 0}
    async with running(setting) as stack:
        answer = await ask(stack, "m")
        assert answer.summary["degraded"] and answer.text.endswith(".")
        other = {"small": "large", "large": "small"}[lost]
        assert answer.summary["members"][0 if lost == "small" else 1]["status"] != "ok"
        assert answer.written[-1].span is None or answer.written[-1].span.author == other


async def test_an_answer_resumes_from_every_checkpoint() -> None:
    params: dict[str, Any] = {"temperature": 1.0, "seed": 5, "ignore_eos": True, "max_tokens": 16}
    async with running(config(m=by("margin", 0.5, chunk_tokens=4))) as stack:
        whole = await ask(stack, "m", **params)
        assert len(whole.written) > 2
        for written in whole.written[:-1]:
            past = resumed(whole.written, written)
            rest = await ask(stack, "m", past, **params)
            assert whole.text.startswith(past.text)
            assert past.text + rest.text == whole.text


def resumed(written: list[Written], last: Written) -> Checkpoint:
    spans = tuple(w.span for w in written[: written.index(last) + 1] if w.span is not None)
    state = json.loads(json.dumps(last.checkpoint.state))
    return replace(last.checkpoint, state=state, spans=spans)


async def test_tokens_carry_their_authors_probabilities() -> None:
    async with running(config(m=by("margin", 0.5))) as stack:
        answer = await ask(stack, "m", logprobs=2)
        tokens = [token for w in answer.written if w.span for token in w.span.tokens]
        assert b"".join(token.data for token in tokens).decode() == answer.text
        logprobs = [token.logprob for token in tokens]
        assert all(logprob is not None and logprob > -0.05 for logprob in logprobs)
        assert tokens[1].weights["small"] == pytest.approx(0.02, abs=1e-3)  # unsure of the cat
        assert len(tokens[0].top) == 2


@pytest.mark.parametrize(("calls", "text"), [(1, " the"), (2, " the dog"), (3, " the dog")])
async def test_a_budget_ends_the_answer_with_the_text_so_far(calls: int, text: str) -> None:
    async with running(config(m=by("margin", 0.5))) as stack:
        answer = await ask(stack, "m", budget=Budget(calls=calls))
        assert answer.end.stop_reason == "budget_calls" and answer.text == text
