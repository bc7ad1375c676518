"""DER's rewards, worked out by hand."""

from __future__ import annotations

import pytest

from envs.dynamic_ensemble.mdp import RewardConfig, State, called, stopped

CONFIG = RewardConfig(alpha=2.0)
PAPER = RewardConfig(alpha=2.0, ends="threshold", first_gains=False)


def test_a_call_pays_its_cost_and_what_it_adds() -> None:
    first = called(State("q"), "a", "bad", 0.25, 0.1, CONFIG)
    assert first.reward == pytest.approx(5 * 0.25 - 0.2)
    better = called(first.state, "b", "good", 0.75, 0.3, CONFIG)
    assert better.reward == pytest.approx(5 * 0.5 - 0.6)
    assert better.state == State("q", "good", 0.75, 2, 0.4, ("a", "b"))
    worse = called(better.state, "a", "bad", 0.25, 0.1, CONFIG)
    assert worse.reward == pytest.approx(-5 * 0.5 - 0.2)
    assert not (first.terminated or better.terminated or worse.terminated)


def test_stopping_reports_the_quality_once_with_bonus_or_penalty() -> None:
    good, bad = State("q", "good", 0.8, 1), State("q", "bad", 0.7, 1)
    assert stopped(good, CONFIG).reward == pytest.approx(0.8 + 2)
    assert stopped(bad, CONFIG).reward == pytest.approx(0.7 - 2)
    assert stopped(good, CONFIG).terminated


def test_a_detour_over_a_bad_answer_never_pays() -> None:
    def paid(config: RewardConfig, *answers: tuple[str, float]) -> float:
        state, total = State("q"), 0.0
        for answer, quality in answers:
            step = called(state, "a", answer, quality, 0.1, config)
            state, total = step.state, total + step.reward
        return total + stopped(state, config).reward

    detour = (("bad", 0.0), ("right", 1.0))
    assert paid(CONFIG, ("right", 1.0)) > paid(CONFIG, *detour)
    paper = CONFIG.model_copy(update={"first_gains": False})
    assert paid(paper, ("right", 1.0)) < paid(paper, *detour), "which is why it is not the default"


def test_asking_on_after_a_right_answer_never_pays() -> None:
    right = called(State("q"), "a", "right", 1.0, 0.1, CONFIG).state
    at_once = stopped(right, CONFIG).reward
    again = called(right, "b", "right", 1.0, 0.1, CONFIG)
    assert again.reward + stopped(again.state, CONFIG).reward < at_once


def test_the_last_call_ends_the_episode() -> None:
    state = State("q", "bad", 0.2, 4)
    step = called(state, "a", "right", 1.0, 0.1, CONFIG)
    assert step.terminated
    assert step.reward == pytest.approx(5 * 0.8 - 0.2 + 1.0 + 2)
    assert called(state, "a", "bad", 0.2, 0.1, CONFIG).reward == pytest.approx(-0.2 + 0.2 - 2)


def test_the_papers_training_pays_every_call_its_quality_and_ends_when_good_enough() -> None:
    first = called(State("q"), "a", "bad", 0.5, 0.1, PAPER)
    assert first.reward == pytest.approx(0.5 - 0.2) and not first.terminated
    good = called(first.state, "b", "good", 0.75, 0.1, PAPER)
    assert good.reward == pytest.approx(0.75 - 0.2 + 5 * 0.25 + 2) and good.terminated
    late = called(State("q", "bad", 0.5, 4), "a", "bad", 0.5, 0.1, PAPER)
    assert late.reward == pytest.approx(0.5 - 0.2 - 2) and late.terminated


def test_a_failed_call_costs_and_the_last_answer_stays() -> None:
    before = State("q", "good", 0.9, 1, 0.1, ("a",))
    step = called(before, "b", None, 0.0, 0.3, CONFIG)
    assert step.reward == pytest.approx(-0.6)
    assert (step.state.answer, step.state.quality, step.state.calls) == ("good", 0.9, 2)
    nothing = called(State("q"), "b", None, 0.0, 0.3, CONFIG)
    assert stopped(nothing.state, CONFIG).reward == pytest.approx(-2), (
        "no answer is not good enough"
    )


def test_to_stop_before_the_first_call_is_as_bad_as_a_worthless_answer() -> None:
    assert stopped(State("q"), CONFIG).reward == pytest.approx(-2)
