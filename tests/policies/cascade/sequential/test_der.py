"""DER with agents made by hand: routes, stopping, failures, budgets, new exports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.cascade.sequential.agent import ABOUT, WEIGHTS
from runtime.engines.scripted.base import HIDDEN as WIDTH
from runtime.errors import BadRequest, ConfigError, QuorumLost
from runtime.types.events import Ended, Searched, Written
from runtime.types.query import Budget, Message, Query
from tests.support.local_stack import ask, running
from tests.support.models.agents import ECHO, PROMPT, agent, by_calls, config

A, B, STOP = 0, 1, 2


async def test_the_agent_decides_whom_to_ask_and_when_to_stop(tmp_path: Path) -> None:
    made = agent(by_calls(A, B, STOP))
    made.save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        told = await ask(stack, "der", messages=(Message("user", "hi"),), trace="full")
    assert told.text == "hi / hi" and told.end.stop_reason == "eos"
    assert told.summary["route"] == ["a", "b"]
    assert len(told.summary["agent"]) == 12
    assert [call["answer"] for call in told.summary["full"]["state"]["route"]] == ["hi", "hi / hi"]
    assert told.member("b")["share"] == 1.0 and told.member("a")["spans"] == 0


async def test_the_last_call_is_streamed_and_says_the_same(tmp_path: Path) -> None:
    words = " ".join(["word"] * 40)
    agent(by_calls(A, B, t_max=2), t_max=2).save(tmp_path / "two")
    agent(by_calls(A, B, STOP, t_max=3), t_max=3).save(tmp_path / "three")
    both = config(tmp_path, streamed={}, told={})
    both["ensembles"]["streamed"] |= {"agent": str(tmp_path / "two"), "chunk_tokens": 8}
    both["ensembles"]["told"]["agent"] = str(tmp_path / "three")
    async with running(both) as stack:
        streamed = await ask(stack, "streamed", messages=(Message("user", words),))
        told = await ask(stack, "told", messages=(Message("user", words),))
    assert streamed.text == told.text == f"{words} / {words}"
    assert len(streamed.written) > 5 and len(told.written) == 1
    assert streamed.summary["route"] == told.summary["route"] == ["a", "b"]


async def test_one_call_is_a_router(tmp_path: Path) -> None:
    agent(by_calls(B), t_max=1).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        told = await ask(stack, "der", messages=(Message("user", "hi"),))
    assert told.text == "hi" and told.summary["route"] == ["b"]


async def test_a_member_that_fails_spends_a_call_and_is_asked_no_more(tmp_path: Path) -> None:
    agent(by_calls(B, B, STOP)).save(tmp_path)
    broken = config(tmp_path, der={})
    broken["members"]["b"] = {
        "engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": 1},
        "retries": 0,
    }
    async with running(broken) as stack:
        told = await ask(stack, "der", messages=(Message("user", "hi"),), trace="full")
    assert told.text == "hi" and told.summary["route"] == ["b", "a"]
    assert told.member("b")["status"] == "dropped" and told.summary["degraded"]


@pytest.mark.parametrize("fails_from", [1, 2])
async def test_a_writer_that_fails_is_followed_by_another(tmp_path: Path, fails_from: int) -> None:
    agent(by_calls(B), t_max=1).save(tmp_path)
    broken = config(tmp_path, der={"chunk_tokens": 4})
    broken["members"]["b"] = {
        "engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": fails_from},
        "retries": 0,
    }
    text = "one two three four five six seven"
    async with running(broken) as stack:
        told = await ask(stack, "der", messages=(Message("user", text),))
    assert told.text == text
    assert told.member("a")["share"] > 0 and (told.member("b")["share"] > 0) == (fails_from == 2)


async def test_when_all_fail_the_caller_hears_it(tmp_path: Path) -> None:
    agent(by_calls(B, A)).save(tmp_path)
    broken = config(tmp_path, der={"encoder": "reader"})
    broken["members"] = dict.fromkeys(
        ("a", "b"),
        {"engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": 1}, "retries": 0},
    )
    broken["members"]["reader"] = ECHO
    broken["ensembles"]["der"]["members"] = ["a", "b", "reader"]
    agent(by_calls(B, A), encoder="reader").save(tmp_path)
    async with running(broken) as stack:
        with pytest.raises(QuorumLost):
            await ask(stack, "der", messages=(Message("user", "hi"),), members=("a", "b"))


async def test_a_spent_budget_ends_the_route_with_the_answer_there_is(tmp_path: Path) -> None:
    agent(by_calls(A, B, A, B, A)).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        told = await ask(stack, "der", messages=(Message("user", "hi"),), budget=Budget(calls=3))
    # to read, to ask, to read again: nothing is left for a second call
    assert told.text == "hi" and told.end.stop_reason == "budget_calls"
    assert told.end.finish_reason == "length"


async def test_a_new_export_is_taken_without_restart_and_a_damaged_one_is_not(
    tmp_path: Path,
) -> None:
    agent(by_calls(A, STOP)).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:

        async def route() -> tuple[list[str], str]:
            told = await ask(stack, "der", messages=(Message("user", "hi"),))
            return told.summary["route"], told.summary["agent"]

        first = await route()
        agent(by_calls(B, STOP)).save(tmp_path)
        second = await route()
        (tmp_path / WEIGHTS).write_bytes(b"torn")
        about = (tmp_path / ABOUT).read_text()
        (tmp_path / ABOUT).unlink()
        (tmp_path / ABOUT).write_text(about)
        third = await route()
    assert first[0] == ["a"] and second[0] == ["b"]
    assert first[1] != second[1] and second == third


async def test_an_answer_goes_on_on_another_coordinator(tmp_path: Path) -> None:
    agent(by_calls(A, B, A, t_max=3), t_max=3).save(tmp_path)
    async with running(config(tmp_path, der={"chunk_tokens": 4})) as stack:
        query = Query(id="t", model="der", messages=(Message("user", "one two\nthree"),))
        events = [event async for event in stack.models["der"].answer(query)]
        whole = "".join(event.text for event in events if isinstance(event, Written))
        assert sum(isinstance(event, Searched) for event in events) >= 2
        for place, event in enumerate(events[:-1]):
            assert isinstance(event, Searched | Written)
            shown = "".join(e.text for e in events[: place + 1] if isinstance(e, Written))
            rest = [e async for e in stack.models["der"].answer(query, event.checkpoint)]
            more = "".join(e.text for e in rest if isinstance(e, Written))
            assert shown + more == whole, place
            assert isinstance(rest[-1], Ended)
            assert rest[-1].summary["route"] == ["a", "b", "a"]


async def test_the_terminator_stops(tmp_path: Path) -> None:
    row = np.zeros((1, WIDTH + 1), dtype=np.float32)
    row[0, -1] = 20.0
    sure_after_two = ((row, np.array([-7.0], dtype=np.float32)),)
    agent(by_calls(A, B, A, B), terminator=sure_after_two).save(tmp_path)
    async with running(
        config(tmp_path, der={"stop": "terminator"}, strict={"stop": "terminator", "certain": 1.0})
    ) as stack:
        told = await ask(stack, "der", messages=(Message("user", "hi"),), trace="full")
        strict = await ask(stack, "strict", messages=(Message("user", "hi"),))
    assert told.summary["route"] == ["a", "b"]
    assert told.summary["full"]["state"]["good_enough"] == pytest.approx([0.047, 0.731], abs=1e-3)
    assert len(strict.summary["route"]) == 5


async def test_sampled_routes_follow_the_seed(tmp_path: Path) -> None:
    even = ((np.zeros((3, WIDTH + 1), dtype=np.float32), np.zeros(3, dtype=np.float32)),)
    agent(even).save(tmp_path)
    async with running(config(tmp_path, der={"choose": "sampled"})) as stack:

        async def route(seed: int) -> tuple[str, ...]:
            told = await ask(stack, "der", messages=(Message("user", "hi"),), seed=seed)
            return tuple(told.summary["route"])

        first = [await route(seed) for seed in range(12)]
        again = await asyncio.gather(*map(route, range(12)))
    assert first == list(again) and len(set(first)) >= 4
    assert all(1 <= len(one) <= 5 for one in first)


async def test_t_max_can_be_less_than_the_agents_and_not_more(tmp_path: Path) -> None:
    agent(by_calls(A, B, A, B, A)).save(tmp_path)
    async with running(config(tmp_path, few={"t_max": 2}, many={"t_max": 9})) as stack:
        few = await ask(stack, "few", messages=(Message("user", "hi"),))
        many = await ask(stack, "many", messages=(Message("user", "hi"),))
    assert len(few.summary["route"]) == 2 and len(many.summary["route"]) == 5


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (agent(by_calls(A, STOP), members=("a", "c")), "'c'"),
        (agent(by_calls(A, STOP), encoder="b"), "encoder 'b'"),
        (agent(by_calls(A, STOP), prompts={"a": PROMPT, "b": "{previous}{question}"}), "prompts"),
        (None, "orchestrion train der"),
    ],
)
async def test_an_agent_for_other_conditions_is_refused(
    tmp_path: Path, made: Any, named: str
) -> None:
    if made is not None:
        made.save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        with pytest.raises(ConfigError, match=named):
            await ask(stack, "der", messages=(Message("user", "hi"),))


async def test_an_agent_for_another_encoder_is_refused(tmp_path: Path) -> None:
    layers = ((np.zeros((3, 5), dtype=np.float32), np.zeros(3, dtype=np.float32)),)
    agent(layers).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        with pytest.raises(ConfigError, match="trained on 4"):
            await ask(stack, "der", messages=(Message("user", "hi"),))


async def test_a_member_whose_window_is_too_small_is_passed_over(tmp_path: Path) -> None:
    agent(by_calls(A, B, STOP)).save(tmp_path)
    small = config(tmp_path, der={})
    text = " ".join(["word"] * 20)
    async with running(small) as stack:
        told = await ask(stack, "a", messages=(Message("user", text),))
    room = told.end.prompt_tokens + told.end.completion_tokens // 2
    small["members"]["b"] = {"engine": {"type": "echo", "context_length": room}}
    async with running(small) as stack:
        told = await ask(stack, "der", messages=(Message("user", text),))
    assert told.summary["route"] == ["a", "a"] and told.text == f"{text} / {text}"
    assert "b cannot hold the last answer" in told.summary["warnings"][0]


async def test_routes_without_an_agent(tmp_path: Path) -> None:
    both = config(tmp_path, all={"type": "fixed-route"}, random={"type": "random-route"})
    async with running(both) as stack:
        turn = await ask(stack, "all", messages=(Message("user", "hi"),))
        drawn = [
            await ask(stack, "random", messages=(Message("user", "hi"),), seed=seed)
            for seed in range(12)
        ]
    assert turn.summary["route"] == ["a", "b"] and turn.text == "hi / hi"
    routes = {tuple(told.summary["route"]) for told in drawn}
    assert len(routes) >= 4 and all(1 <= len(route) <= 5 for route in routes)
    # Asked n times, the answer is as long as n questions put together.
    assert all(told.text.count("hi") == len(told.summary["route"]) for told in drawn)


async def test_stops_of_the_author_count_and_of_no_other(tmp_path: Path) -> None:
    agent(by_calls(A, STOP)).save(tmp_path / "a")
    agent(by_calls(B, STOP)).save(tmp_path / "b")
    agent(by_calls(B, A, STOP)).save(tmp_path / "ba")
    told = config(tmp_path, by_a={}, by_b={}, by_ba={})
    for name in ("a", "b", "ba"):
        told["ensembles"][f"by_{name}"]["agent"] = str(tmp_path / name)
    told["members"]["b"] = ECHO | {"stop": ["four"]}
    asked = (Message("user", "three four five"),)
    async with running(told) as stack:
        by_a = await ask(stack, "by_a", messages=asked)
        by_b = await ask(stack, "by_b", messages=asked)
        both = await ask(stack, "by_ba", messages=asked, trace="full")
        cut = await ask(stack, "by_a", messages=asked, stop=("five",))
    assert by_a.text == "three four five" and by_b.text == "three"
    # "a" was shown what the caller would have been
    assert both.text == "three four five / three"
    assert both.summary["full"]["state"]["route"][0]["answer"] == "three"
    assert cut.text.strip() == "three four" and cut.end.finish_reason == "stop"


async def test_an_encoder_that_fails_later_does_not_lose_the_answer(tmp_path: Path) -> None:
    agent(by_calls(B, A, STOP), encoder="a").save(tmp_path)
    broken = config(tmp_path, der={})
    # The first call reads the question, the second one would read the answer.
    broken["members"]["a"] = {
        "engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": 2},
        "retries": 0,
    }
    async with running(broken) as stack:
        told = await ask(stack, "der", messages=(Message("user", "hi"),))
    assert told.text == "hi" and told.end.stop_reason == "eos"
    assert "the route ended early" in told.summary["warnings"][0]


async def test_a_budget_that_ends_a_stream_tells_who_wrote(tmp_path: Path) -> None:
    agent(by_calls(B, t_max=1), t_max=1).save(tmp_path)
    async with running(config(tmp_path, der={"chunk_tokens": 4})) as stack:
        told = await ask(
            stack,
            "der",
            messages=(Message("user", " ".join(["word"] * 30)),),
            budget=Budget(calls=3),
        )
    assert told.end.stop_reason == "budget_calls" and told.text
    assert told.summary["route"] == ["b"]


async def test_an_export_for_other_conditions_does_not_replace_one_that_serves(
    tmp_path: Path,
) -> None:
    agent(by_calls(A, STOP)).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        first = await ask(stack, "der", messages=(Message("user", "hi"),))
        agent(by_calls(B, STOP), encoder="b").save(tmp_path)
        second = await ask(stack, "der", messages=(Message("user", "hi"),))
    assert first.summary["agent"] == second.summary["agent"]


async def test_an_agent_that_never_learnt_to_stop_needs_its_terminator(tmp_path: Path) -> None:
    agent(by_calls(A, STOP), stops=False).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        with pytest.raises(ConfigError, match="without a stop action"):
            await ask(stack, "der", messages=(Message("user", "hi"),))


async def test_who_goes_on_with_a_text_can_hold_it(tmp_path: Path) -> None:
    text = " ".join(["word"] * 20)
    told = config(tmp_path, der={"chunk_tokens": 4})
    told["members"]["c"] = ECHO
    told["ensembles"]["der"] |= {"members": ["a", "b", "c"], "encoder": "c"}
    layers = by_calls(B, 3, t_max=1)
    agent(layers, members=("a", "b", "c"), t_max=1, encoder="c").save(tmp_path)
    async with running(told) as stack:
        alone = await ask(stack, "a", messages=(Message("user", text),))
    room = alone.end.prompt_tokens + 4
    told["members"]["a"] = {"engine": {"type": "echo", "context_length": room}}
    told["members"]["b"] = {
        "engine": {"type": "flaky", "engine": ECHO["engine"], "fails_from": 3},
        "retries": 0,
    }
    async with running(told) as stack:
        answer = await ask(stack, "der", messages=(Message("user", text),))
    assert answer.text == text and answer.member("c")["share"] > 0


async def test_a_chat_without_a_question_is_refused(tmp_path: Path) -> None:
    agent(by_calls(A, STOP)).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        with pytest.raises(BadRequest, match="turn of the user"):
            await ask(stack, "der", messages=(Message("system", "be brief"),))


async def test_an_answer_in_pieces_costs_what_it_would_in_one(tmp_path: Path) -> None:
    priced = config(tmp_path, few={"type": "fixed-route"}, many={"type": "fixed-route"})
    engine = {"type": "transformers", "weights": "zoo:small", "cache_mb": 16, "threads": 1}
    priced["members"] = dict.fromkeys(
        ("a", "b"), {"engine": engine, "price": {"input": 1.0, "output": 2.0}}
    )
    priced["ensembles"]["few"] |= {"members": ["a"], "chunk_tokens": 400}
    priced["ensembles"]["many"] |= {"members": ["a"], "chunk_tokens": 4}
    asked = (Message("user", "What is the currency of the country whose capital is Lima?"),)
    async with running(priced) as stack:
        few = await ask(stack, "few", messages=asked)
        many = await ask(stack, "many", messages=asked)
    assert few.text == many.text and len(many.written) > len(few.written)
    assert many.summary["cost"]["amount"] == pytest.approx(few.summary["cost"]["amount"])
