"""A key's limits, by hand: moments are seconds."""

from __future__ import annotations

import calendar

import pytest

from deployments.http.auth.key_usage import KeyUsage
from deployments.http.auth.quotas import Bucket, Left, Spent, began, ends, left, part
from runtime.config.access import Allowance, KeyBudget
from runtime.errors import QuotaSpent, TooMany
from runtime.types.query import Budget

NOON = calendar.timegm((2026, 11, 22, 12, 0, 0))


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_what_it_holds_and_fills_evenly() -> None:
    # 6 a minute: one comes back every 10 s.
    bucket = Bucket(1.0, at=100.0)
    assert bucket.wait(0.1) == 0.0
    empty = bucket.taken()
    assert (empty.level, empty.wait(0.1)) == (0.0, 10.0)
    quarter = empty.filled(6.0, 0.1, now=102.5)
    assert (quarter.level, quarter.wait(0.1)) == (0.25, 7.5)
    assert quarter.filled(6.0, 0.1, now=110.0).wait(0.1) == 0.0
    assert quarter.filled(6.0, 0.1, now=1000.0).level == 6.0


def test_a_clock_that_is_set_back_gives_nothing() -> None:
    assert Bucket(0.5, at=100.0).filled(6.0, 0.1, now=50.0) == Bucket(0.5, at=50.0)


@pytest.mark.parametrize(
    ("period", "first", "last"),
    [
        ("hour", (2026, 12, 31, 23, 0, 0), (2027, 1, 1, 0, 0, 0)),
        ("day", (2026, 12, 31, 0, 0, 0), (2027, 1, 1, 0, 0, 0)),
        ("month", (2026, 12, 1, 0, 0, 0), (2027, 1, 1, 0, 0, 0)),
    ],
)
def test_periods_are_those_of_the_calendar(
    period: str, first: tuple[int, ...], last: tuple[int, ...]
) -> None:
    now = calendar.timegm((2026, 12, 31, 23, 59, 59))
    assert began(now, period) == calendar.timegm(first)  # type: ignore[arg-type]
    assert ends(now, period) == calendar.timegm(last)  # type: ignore[arg-type]


def test_a_new_period_begins_with_nothing_spent() -> None:
    spent = Spent().at(NOON, "hour").plus(30, 0.5).plus(12, 0.25)
    assert spent == Spent(NOON, 42, 0.75)
    assert spent.at(NOON + 3599, "hour") == spent
    assert spent.at(NOON + 3600, "hour") == Spent(NOON + 3600)


@pytest.mark.parametrize(
    ("budget", "rest", "gone"),
    [
        (KeyBudget(tokens=100), Left(58, None), False),
        (KeyBudget(tokens=42), Left(0, None), True),
        (KeyBudget(tokens=10), Left(0, None), True),
        (KeyBudget(cost=1.0), Left(None, 0.25), False),
        (KeyBudget(tokens=100, cost=0.75), Left(58, 0.0), True),
    ],
)
def test_what_is_left_of_a_budget(budget: KeyBudget, rest: Left, gone: bool) -> None:
    found = left(budget, Spent(NOON, 42, 0.75))
    assert (found, found.gone) == (rest, gone)


def test_several_gateways_grant_a_part_each() -> None:
    budget = KeyBudget(tokens=100, cost=3.0)
    whole = Allowance(requests_per_minute=60, concurrent=4, budget=budget, models=("m",))
    third = part(whole, 3)
    assert third.requests_per_minute == 20 and third.concurrent == 2
    assert third.budget == KeyBudget(tokens=33, cost=1.0)
    assert third.models == ("m",)
    assert part(whole, 1) == whole and part(Allowance(), 3) == Allowance()


def test_requests_beyond_the_rate_say_how_long_to_wait() -> None:
    clock, allowance = Clock(), Allowance(requests_per_minute=2)
    account = KeyUsage(clock)
    account.enter(allowance)
    account.enter(allowance)
    clock.now += 12
    with pytest.raises(TooMany) as often:
        account.enter(allowance)
    assert often.value.retry_after == pytest.approx(18)
    clock.now += 18
    account.enter(allowance)
    assert account.running == 3


def test_less_than_one_request_a_minute_is_still_one_now_and_then() -> None:
    clock, seldom = Clock(), Allowance(requests_per_minute=0.5)
    account = KeyUsage(clock)
    account.enter(seldom)
    with pytest.raises(TooMany) as often:
        account.enter(seldom)
    assert often.value.retry_after == pytest.approx(120)


def test_only_so_many_run_at_a_time() -> None:
    account, pair = KeyUsage(Clock()), Allowance(concurrent=2, requests_per_minute=3)
    account.enter(pair)
    account.enter(pair)
    for _ in range(5):  # a refusal takes nothing of the rate
        with pytest.raises(TooMany, match="2 requests at a time"):
            account.enter(pair)
    account.leave()
    account.enter(pair)


def test_a_spent_budget_comes_back_with_the_next_period() -> None:
    clock = Clock()
    allowance = Allowance(budget=KeyBudget(tokens=100, cost=2.0, period="day"))
    account = KeyUsage(clock)
    account.enter(allowance)
    account.charge(allowance, 90, 0.5)
    assert account.budget(allowance) == Budget(tokens=10, cost=1.5)
    assert account.budget(allowance, answers=3) == Budget(tokens=3, cost=0.5)
    account.charge(allowance, 11, 0.1)
    with pytest.raises(QuotaSpent, match="100 tokens and 2 in cost a day") as spent:
        account.enter(allowance)
    assert spent.value.retry_after == 12 * 3600
    assert "12 h 0 min" in str(spent.value)
    clock.now += 12 * 3600
    account.enter(allowance)
    assert account.budget(allowance) == Budget(tokens=100, cost=2.0)


def test_without_limits_all_is_granted() -> None:
    account = KeyUsage(Clock())
    for _ in range(1000):
        account.enter(Allowance())
    account.charge(Allowance(), 10**9, 1e9)
    assert account.budget(Allowance()) == Budget()
