"""CITER's environment and its preference data, on two members without any model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from envs.token_routing.env import LARGE, SMALL, TokenRoutingEnv, TokenRoutingVectorEnv
from envs.token_routing.preferences import Round, collect, counts, read, states, table_of, write
from runtime.artifacts.token_router import Router
from runtime.data.questions import Question
from runtime.errors import ConfigError
from tests.support.models.table_pair import FIRST, QUALITY, TASKS, WIDTH, Pair, world


def figures() -> Router:
    """Hands figures over."""
    weight = np.array([[10.0, -20.0, 0.0, 0.0]], dtype=np.float32)
    return Router(((weight, np.zeros(1, np.float32)),), "a small one", "citer")


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is.*infinity")
def test_it_is_a_gymnasium_environment() -> None:
    check_env(TokenRoutingEnv({"world": world()}), skip_render_check=True)


def play(env: TokenRoutingEnv, choose: Any, task: int = 0) -> tuple[float, dict[str, Any], int]:
    seen, _ = env.reset(options={"task": task})
    total, steps = 0.0, 0
    while True:
        seen, reward, ended, cut, info = env.step(choose(seen))
        total, steps = total + reward, steps + 1
        assert not cut
        if ended:
            return total, info, steps


def test_the_end_pays_its_quality_and_large_tokens_cost() -> None:
    env = TokenRoutingEnv({"world": world(alpha=0.05)})
    total, info, steps = play(env, lambda seen: SMALL)
    assert (total, info["good"], steps) == (0.0, 0.0, 5)  # a?b? and the end
    total, info, _ = play(env, lambda seen: LARGE)
    assert total == pytest.approx(1.0 - 5 * 0.05) and info["good"] == 1.0 and info["cost"] == 1.0
    total, info, _ = play(env, lambda seen: LARGE if seen[1] else SMALL)
    assert total == pytest.approx(1.0 - 2 * 0.05) and info["cost"] == pytest.approx(2 / 5)


def test_an_answer_ends_at_the_limit() -> None:
    short = replace(world(), most=3)
    _, info, steps = play(TokenRoutingEnv({"world": short}), lambda seen: LARGE)
    assert steps == 3 and info["good"] == 0.0


def test_a_lost_large_member_costs_and_the_small_ones_token_stands() -> None:
    env = TokenRoutingEnv({"world": world(Pair(lost="large"))})
    total, info, _ = play(env, lambda seen: LARGE)
    assert total == pytest.approx(-5 * 0.05) and info["good"] == 0.0


def test_a_lost_small_member_ends_the_episode() -> None:
    env = TokenRoutingEnv({"world": world(Pair(lost="small"))})
    total, info, steps = play(env, lambda seen: SMALL)
    assert (total, steps) == (0.0, 1)


def test_side_by_side_is_one_by_one() -> None:
    """Whatever is drawn, with calls in flight together and NEXT_STEP autoreset."""
    count = 5
    pair = Pair()
    vector = TokenRoutingVectorEnv({"world": world(pair), "num_envs": count})
    assert vector.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    seen, _ = vector.reset(seed=3)
    draws = np.random.default_rng(0)
    episodes = [[] for _ in range(count)]  # type: ignore[var-annotated]
    ended_before = np.zeros(count, dtype=bool)
    finished = 0
    for _ in range(40):
        actions = draws.integers(2, size=count)
        places = dict(vector._states)
        pair.calls.clear()
        after, rewards, ended, cut, _ = vector.step(actions)
        assert sum(who == "large" for who, _ in pair.calls) <= 1
        assert not cut.any()
        for i in range(count):
            if ended_before[i]:
                assert rewards[i] == 0 and not ended[i]
                episodes[i] = []
                continue
            episodes[i].append(int(actions[i]))
            if ended[i]:
                finished += 1
                alone = TokenRoutingEnv({"world": world()})
                alone.reset(options={"task": TASKS.index(places[i].task)})
                total = sum(alone.step(action)[1] for action in episodes[i])
                assert total == pytest.approx(rewards[i] - 0.05 * episodes[i][:-1].count(LARGE))
        ended_before = ended
        seen = after
    assert finished > 10 and seen.shape == (count, WIDTH)


# -- preferences ---------------------------------------------------------------------------------


def test_the_three_cases() -> None:
    rows = collect(Pair(), QUALITY, [TASKS[0]], FIRST)
    assert TASKS[0].reference == "a0b1"
    result = [(row["place"], row["case"], row["small"]) for row in rows]
    assert result == [(0, 1, 1), (1, 2, 0), (2, 1, 1), (3, 2, 0), (4, 1, 1)]
    assert rows[1]["small_token"] == ord("?") and rows[1]["large_token"] == ord("0")


def test_where_both_are_wrong_the_answers_end_decides() -> None:
    """The reference spells a letter that both would not: what the small one writes instead is as
    good, if the rest comes out right."""
    odd = replace(TASKS[0], reference="A0b1")
    [alone] = [row for row in collect(Pair(), QUALITY, [odd], FIRST) if row["case"] == 3]
    assert alone["place"] == 0 and alone["small"] == 0  # it goes on with ? for figures
    second = Round(2, figures(), 0.5, 8, 0.5)
    [routed] = [row for row in collect(Pair(), QUALITY, [odd], second) if row["case"] == 3]
    assert routed["small"] == 1 and routed["round"] == 2


def test_a_question_at_which_a_member_failed_is_left_out() -> None:
    rows = collect(Pair(lost="q1"), QUALITY, TASKS[:3], FIRST)
    assert {row["question"] for row in rows} == {"q0", "q2"}


def test_a_question_without_a_reference_is_refused() -> None:
    with pytest.raises(ConfigError, match='give each line a "reference"'):
        collect(Pair(), QUALITY, [Question("q", "a")], FIRST)


def test_preferences_are_kept_with_where_they_come_from(tmp_path: Path) -> None:
    about = {"small": "s", "round": 1}
    table = table_of(collect(Pair(), QUALITY, TASKS, FIRST), about)
    file = tmp_path / "p.parquet"
    assert read(file, about) is None
    write(file, table)
    again = read(file, about)
    assert again is not None and again.equals(table)
    assert read(file, about | {"round": 2}) is None  # others are collected anew
    assert states(table).shape == (len(table), WIDTH)
    assert counts(table)["case_1"] + counts(table)["case_2"] == len(table)
