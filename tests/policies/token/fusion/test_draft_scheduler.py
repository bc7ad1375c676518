"""The drafting plan follows the measured speed of rounds."""

from __future__ import annotations

from collections import Counter

from policies.token.fusion.draft_scheduler import RETRY_EVERY, SHORT, DraftScheduler, Plan, lengths

NAMES = ["quick", "slow"]


def speed(plan: Plan) -> float:
    """Tokens a second in a world where the first member, short drafts and no hurry are best."""
    return 10.0 * (plan.drafter == "quick") + 3.0 * (plan.length == SHORT) - plan.on


def rounds(scheduler: DraftScheduler, count: int) -> Counter[Plan]:
    chosen = Counter[Plan]()
    for _ in range(count):
        plan = scheduler.choose(NAMES, 12)
        chosen[plan] += 1
        scheduler.record(plan, 5, 5 / max(speed(plan), 0.1))
    return chosen


def test_every_way_is_tried_once_and_then_the_best_is_kept() -> None:
    scheduler = DraftScheduler()
    first = rounds(scheduler, 5)
    assert set(first.values()) == {1}
    assert {plan for plan in first if plan.drafter == "quick"} == {
        Plan("quick", length, on) for length in (SHORT, 12) for on in (False, True)
    }
    later = rounds(scheduler, 400)
    assert later[Plan("quick", SHORT)] > 400 - 400 // RETRY_EVERY - 3
    assert not any(plan.drafter == "slow" for plan in later)  # hopeless, so once was enough
    assert later[Plan("quick", SHORT, on=True)] > 0  # near the best: looked at again


def test_what_has_changed_is_noticed() -> None:
    scheduler = DraftScheduler()
    rounds(scheduler, 50)
    best, other = Plan("quick", SHORT), Plan("quick", SHORT, on=True)
    for _ in range(200):
        plan = scheduler.choose(NAMES, 12)
        scheduler.record(plan, 5, 1.0 if plan == best else 5 / max(speed(plan), 0.1))
    assert scheduler.choose(NAMES, 12) in (other, Plan("quick", 12), Plan("quick", 12, on=True))
    assert scheduler.speeds()[f"quick x{SHORT}"] <= speed(other)


def test_lengths_stay_within_the_limit() -> None:
    assert lengths(12) == [SHORT, 12]
    assert lengths(2) == [2]
    assert {plan.length for plan in (DraftScheduler().choose(["a"], 2),)} == {2}
