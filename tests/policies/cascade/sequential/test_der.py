"""DER with agents made by hand: routes, streaming, stopping, new exports, resuming."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from policies.cascade.sequential.agent import ABOUT, WEIGHTS
from runtime.engines.scripted.base import HIDDEN as WIDTH
from runtime.types.events import Ended, Searched, Written
from runtime.types.query import Message, Query
from tests.support.local_stack import ask, running
from tests.support.models.agents import ECHO, agent, by_calls, config

A, B, STOP = 0, 1, 2


async def test_the_agent_chooses_the_member_and_when_to_stop(tmp_path: Path) -> None:
    made = agent(by_calls(A, B, STOP))
    made.save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        answer = await ask(stack, "der", messages=(Message("user", "hi"),), trace="full")
    assert answer.text == "hi / hi" and answer.end.stop_reason == "eos"
    assert answer.summary["route"] == ["a", "b"]
    assert len(answer.summary["agent"]) == 12
    assert [call["answer"] for call in answer.summary["full"]["state"]["route"]] == [
        "hi",
        "hi / hi",
    ]
    assert answer.member("b")["share"] == 1.0 and answer.member("a")["spans"] == 0


async def test_the_last_call_is_streamed_and_says_the_same(tmp_path: Path) -> None:
    words = " ".join(["word"] * 40)
    agent(by_calls(A, B, t_max=2), t_max=2).save(tmp_path / "two")
    agent(by_calls(A, B, STOP, t_max=3), t_max=3).save(tmp_path / "three")
    both = config(tmp_path, streamed={}, replayed={})
    both["ensembles"]["streamed"] |= {"agent": str(tmp_path / "two"), "chunk_tokens": 8}
    both["ensembles"]["replayed"]["agent"] = str(tmp_path / "three")
    async with running(both) as stack:
        streamed = await ask(stack, "streamed", messages=(Message("user", words),))
        answer = await ask(stack, "replayed", messages=(Message("user", words),))
    assert streamed.text == answer.text == f"{words} / {words}"
    assert len(streamed.written) > 5 and len(answer.written) == 1
    assert streamed.summary["route"] == answer.summary["route"] == ["a", "b"]


async def test_one_call_is_a_router(tmp_path: Path) -> None:
    agent(by_calls(B), t_max=1).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:
        answer = await ask(stack, "der", messages=(Message("user", "hi"),))
    assert answer.text == "hi" and answer.summary["route"] == ["b"]


async def test_a_new_export_is_loaded_without_restart_and_a_damaged_one_is_not(
    tmp_path: Path,
) -> None:
    agent(by_calls(A, STOP)).save(tmp_path)
    async with running(config(tmp_path, der={})) as stack:

        async def route() -> tuple[list[str], str]:
            answer = await ask(stack, "der", messages=(Message("user", "hi"),))
            return answer.summary["route"], answer.summary["agent"]

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


async def test_an_answer_resumes_on_another_coordinator(tmp_path: Path) -> None:
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
        answer = await ask(stack, "der", messages=(Message("user", "hi"),), trace="full")
        strict = await ask(stack, "strict", messages=(Message("user", "hi"),))
    assert answer.summary["route"] == ["a", "b"]
    assert answer.summary["full"]["state"]["good_enough"] == pytest.approx([0.047, 0.731], abs=1e-3)
    assert len(strict.summary["route"]) == 5


async def test_sampled_routes_follow_the_seed(tmp_path: Path) -> None:
    even = ((np.zeros((3, WIDTH + 1), dtype=np.float32), np.zeros(3, dtype=np.float32)),)
    agent(even).save(tmp_path)
    async with running(config(tmp_path, der={"choose": "sampled"})) as stack:

        async def route(seed: int) -> tuple[str, ...]:
            answer = await ask(stack, "der", messages=(Message("user", "hi"),), seed=seed)
            return tuple(answer.summary["route"])

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


async def test_routes_without_an_agent(tmp_path: Path) -> None:
    both = config(tmp_path, all={"type": "fixed-route"}, random={"type": "random-route"})
    async with running(both) as stack:
        turn = await ask(stack, "all", messages=(Message("user", "hi"),))
        drawn = [
            await ask(stack, "random", messages=(Message("user", "hi"),), seed=seed)
            for seed in range(12)
        ]
    assert turn.summary["route"] == ["a", "b"] and turn.text == "hi / hi"
    routes = {tuple(answer.summary["route"]) for answer in drawn}
    assert len(routes) >= 4 and all(1 <= len(route) <= 5 for route in routes)
    # Asked n times, the answer is as long as n questions put together.
    assert all(answer.text.count("hi") == len(answer.summary["route"]) for answer in drawn)


async def test_stops_of_the_author_count_and_of_no_other(tmp_path: Path) -> None:
    agent(by_calls(A, STOP)).save(tmp_path / "a")
    agent(by_calls(B, STOP)).save(tmp_path / "b")
    agent(by_calls(B, A, STOP)).save(tmp_path / "ba")
    setting = config(tmp_path, by_a={}, by_b={}, by_ba={})
    for name in ("a", "b", "ba"):
        setting["ensembles"][f"by_{name}"]["agent"] = str(tmp_path / name)
    setting["members"]["b"] = ECHO | {"stop": ["four"]}
    messages = (Message("user", "three four five"),)
    async with running(setting) as stack:
        by_a = await ask(stack, "by_a", messages=messages)
        by_b = await ask(stack, "by_b", messages=messages)
        both = await ask(stack, "by_ba", messages=messages, trace="full")
        cut = await ask(stack, "by_a", messages=messages, stop=("five",))
    assert by_a.text == "three four five" and by_b.text == "three"
    # "a" was shown what the caller would have been
    assert both.text == "three four five / three"
    assert both.summary["full"]["state"]["route"][0]["answer"] == "three"
    assert cut.text.strip() == "three four" and cut.end.finish_reason == "stop"


async def test_an_answer_in_pieces_costs_what_it_would_in_one(tmp_path: Path) -> None:
    priced = config(tmp_path, few={"type": "fixed-route"}, many={"type": "fixed-route"})
    engine = {"type": "transformers", "weights": "zoo:small", "cache_mb": 16, "threads": 1}
    priced["members"] = dict.fromkeys(
        ("a", "b"), {"engine": engine, "price": {"input": 1.0, "output": 2.0}}
    )
    priced["ensembles"]["few"] |= {"members": ["a"], "chunk_tokens": 400}
    priced["ensembles"]["many"] |= {"members": ["a"], "chunk_tokens": 4}
    messages = (Message("user", "What is the currency of the country whose capital is Lima?"),)
    async with running(priced) as stack:
        few = await ask(stack, "few", messages=messages)
        many = await ask(stack, "many", messages=messages)
    assert few.text == many.text and len(many.written) > len(few.written)
    assert many.summary["cost"]["amount"] == pytest.approx(few.summary["cost"]["amount"])
