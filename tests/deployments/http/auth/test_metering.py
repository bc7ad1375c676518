"""Budgets of keys: what answers cost, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.http.auth.metering import spent
from runtime.errors import QuorumLost
from runtime.types.events import Checkpoint, Ended, Event, MemberUsage, Recalled, Written
from runtime.types.query import Query
from runtime.types.spans import Span
from tests.deployments.http.auth.guarded_api import ANN, BOB, CHAT, bearer, guarded, keys_file, said
from tests.support.http.ensembles import (
    Chorus,
    api_of,
    body,
    call,
)


class Paid(Chorus):
    """Each span costs 10 tokens and a quarter, and the first one can be waited for."""

    def __init__(self, spans: int = 4, pause: float = 0.0, fault: Exception | None = None) -> None:
        super().__init__(pause=pause)
        self.spans, self.fault = spans, fault

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        self.queries.append(query)
        for step in range(self.spans):
            await asyncio.sleep(self.pause)
            used = {"ann": MemberUsage(prompt_tokens=6 * step + 6, cost=0.125 * step + 0.125)}
            used["bob"] = MemberUsage(completion_tokens=4 * step + 4, cost=0.125 * step + 0.125)
            yield Written("la ", Span("la ", "ann", step), Checkpoint(usage=used))
        if self.fault is not None:
            raise self.fault
        total = {"total_tokens": 10 * self.spans}, {"amount": 0.25 * self.spans}
        yield Ended(
            "stop", "eos", 1, 1, {"trace_id": query.id, "usage": total[0], "cost": total[1]}
        )


def test_what_events_have_cost() -> None:
    used = {"a": MemberUsage(prompt_tokens=7, cached_tokens=9, completion_tokens=2, cost=0.5)}
    used["b"] = MemberUsage(completion_tokens=3, cost=0.25)
    assert spent(Written("", None, Checkpoint(usage=used))) == (12, 0.75)
    summary = {"usage": {"total_tokens": 40}, "cost": {"amount": 1.5}}
    assert spent(Ended("stop", "eos", 1, 1, summary)) == (40, 1.5)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_pays_for_what_its_answers_cost_and_is_refused_when_it_is_spent(
    tmp_path: Path, stream: bool
) -> None:
    paid = Paid()
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 100, "cost": 9.0})
    for _ in range(2):
        assert (await call(api, "POST", CHAT, body(stream=stream), bearer(ANN))).status == 200
    assert [query.budget.tokens for query in paid.queries] == [100, 60]
    assert [query.budget.cost for query in paid.queries] == [9.0, 8.0]
    narrow = body(stream=stream, ensemble={"budget": {"tokens": 5}})
    await call(api, "POST", CHAT, narrow, bearer(ANN))
    assert paid.queries[2].budget.tokens == 5, "a request may ask for less"
    refused = await call(api, "POST", CHAT, body(stream=stream), bearer(ANN))
    assert said(refused) == (429, "insufficient_quota", "insufficient_quota")
    assert 0 < int(refused.headers["retry-after"]) <= 86400
    assert refused.headers["x-should-retry"] == "false"
    assert len(paid.queries) == 3
    await call(api, "POST", CHAT, body(stream=stream), bearer(BOB))
    assert paid.queries[3].budget.tokens is None


async def test_what_is_known_of_an_answer_that_is_requested_again_is_not_paid_twice(
    tmp_path: Path,
) -> None:
    """What the key has left bounds what comes after it."""
    paid = Paid()
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 100, "cost": 9.0})
    for _ in range(2):
        again = {**bearer(ANN), "idempotency-key": "once"}
        assert (await call(api, "POST", CHAT, body(), again)).status == 200
    assert [query.left.tokens for query in paid.queries] == [100, 60]
    assert [query.budget.tokens for query in paid.queries] == [None, None]


async def test_recalled_text_costs_nothing(tmp_path: Path) -> None:
    class Known(Paid):
        async def answer(self, query: Query) -> AsyncIterator[Event]:
            self.queries.append(query)
            used = {"ann": MemberUsage(prompt_tokens=40)}
            if query.again:
                yield Recalled("la la ", Checkpoint(usage=used))
            yield Ended("stop", "eos", 1, 1, {"trace_id": "t", "usage": {"total_tokens": 45}})

    known = Known()
    api = guarded(tmp_path, {"m": known}, budget={"tokens": 100})
    await call(api, "POST", CHAT, body(), {**bearer(ANN), "idempotency-key": "once"})
    await call(api, "POST", CHAT, body(), bearer(ANN))
    assert known.queries[1].budget.tokens == 95


async def test_choices_share_what_is_left(tmp_path: Path) -> None:
    paid = Paid()
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 100})
    await call(api, "POST", CHAT, body(n=3), bearer(ANN))
    assert [query.budget.tokens for query in paid.queries] == [33, 33, 33]
    refused = await call(api, "POST", CHAT, body(), bearer(ANN))
    assert refused.status == 429, "three answers cost 120"


async def test_an_answer_that_is_broken_off_is_paid_up_to_its_last_span(tmp_path: Path) -> None:
    paid = Paid(spans=1000, pause=0.01)
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 10_000})
    leave = asyncio.Event()
    params = body(stream=True)
    running = asyncio.create_task(call(api, "POST", CHAT, params, bearer(ANN), leave))
    await asyncio.sleep(0.2)
    leave.set()
    streamed = (await running).content.count(b'"content":"la "')
    assert streamed > 2
    await call(api, "POST", CHAT, body(stream=True), bearer(ANN), leave)
    assert paid.queries[1].budget.tokens == 10_000 - 10 * streamed


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_fails_is_paid_up_to_there(tmp_path: Path, stream: bool) -> None:
    paid = Paid(spans=3, fault=QuorumLost(2, {"ann": "gone"}))
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 1000})
    for _ in range(2):
        await call(api, "POST", CHAT, body(stream=stream), bearer(ANN))
    assert paid.queries[1].budget.tokens == 970


async def test_several_gateways_grant_a_part_each(tmp_path: Path) -> None:
    access = {"keys_file": str(keys_file(tmp_path, requests_per_minute=4))}
    api = api_of({"m": Chorus()}, access=access, replicas=2)
    replies = [await call(api, "POST", CHAT, body(), bearer(ANN)) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]


async def test_limits_change_with_the_file_and_what_was_spent_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.http.auth.keys.RELOAD_CHECK_S", 0.0)
    paid = Paid()
    api = guarded(tmp_path, {"m": paid}, budget={"tokens": 30})
    statuses = [(await call(api, "POST", CHAT, body(), bearer(ANN))).status for _ in range(2)]
    keys_file(tmp_path, budget={"tokens": 70})
    statuses.append((await call(api, "POST", CHAT, body(), bearer(ANN))).status)
    assert statuses == [200, 429, 200]
    assert paid.queries[1].budget.tokens == 30
