"""A full server refuses at once and says when to come back; what it has begun it ends."""

from __future__ import annotations

import asyncio
import time

import pytest

from deployments.http.admission import Admission
from runtime.errors import Overloaded
from runtime.observability.metrics import REFUSED, REQUESTS_IN_PROGRESS, Counts
from tests.support.http.ensembles import Chorus, Reply, api_of, body, call

CHAT = "/v1/chat/completions"


async def test_requests_beyond_the_limit_are_refused_and_the_others_are_answered() -> None:
    api = api_of({"m": Chorus(pause=0.1)}, max_answers=3)

    async def one(stream: bool) -> tuple[float, Reply]:
        started = time.monotonic()
        reply = await call(api, "POST", CHAT, body(stream=stream))
        return time.monotonic() - started, reply

    replies = await asyncio.gather(*(one(stream=number % 2 == 0) for number in range(8)))
    by_status: dict[int, list[tuple[float, Reply]]] = {200: [], 429: []}
    for took, reply in replies:
        by_status[reply.status].append((took, reply))
    assert len(by_status[200]) == 3 and len(by_status[429]) == 5
    slowest = max(took for took, _ in by_status[429])
    assert slowest < min(took for took, _ in by_status[200]) / 4
    for _, refused in by_status[429]:
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["retry-after-ms"]) >= 50
    assert (await one(stream=False))[1].status == 200, "there is room again"


async def test_the_room_of_clients_that_left_is_free_again() -> None:
    api = api_of({"m": Chorus(pause=0.1)}, max_answers=1)
    leave = asyncio.Event()
    request = asyncio.create_task(call(api, "POST", CHAT, body(stream=True), leave=leave))
    await asyncio.sleep(0.15)
    assert (await call(api, "POST", CHAT, body())).status == 429
    leave.set()
    await request
    assert (await call(api, "POST", CHAT, body())).status == 200


def test_a_refusal_reports_when_there_will_be_room() -> None:
    now, counts = 0.0, Counts()
    admission = Admission(2, counts, clock=lambda: now)

    def refused(answers: int = 1) -> float:
        with pytest.raises(Overloaded) as full, admission.of("m", answers):
            pass
        return full.value.retry_after

    first, second = admission.of("m", 1), admission.of("m", 1)
    first.__enter__()
    second.__enter__()
    assert counts.value(REQUESTS_IN_PROGRESS) == 2
    assert refused() == pytest.approx(0.5)  # of two answers, each a second long, one ends
    assert refused() == pytest.approx(1.0)  # behind the first that was refused
    now = 1.5
    assert refused() == pytest.approx(0.5)  # those are no longer waiting
    now = 11.0
    for one in (first, second):
        one.__exit__(None, None, None)
    with admission.of("m", 2):
        assert refused() == pytest.approx((1 + 0.1 * 10 + 0.1 * 9) / 2)
    assert counts.value(REFUSED, "m", "overloaded") == 4
    assert counts.value(REQUESTS_IN_PROGRESS) == 0


def test_a_request_for_many_answers_needs_no_more_room_than_for_one() -> None:
    admission = Admission(2, Counts())
    with admission.of("m", 1), admission.of("m", 5), pytest.raises(Overloaded):
        with admission.of("m", 1):
            pass
