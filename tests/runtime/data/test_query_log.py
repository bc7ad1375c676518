"""Recording answers and replaying them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.dynamic_ensemble.env import OBSERVATION, DynamicEnsembleVectorEnv, World
from envs.members.recording import record
from runtime.data.query_log import MemberCall, Replay, Reply, Unrecorded, write
from runtime.errors import ConfigError
from tests.support.models.table_members import COSTS, KNOWN, TASKS, Shape, Table, world

ABOUT = {"template": "{question} {previous}", "seed": 1}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = record(Table(), [task.question for task in TASKS], tuple(KNOWN), depth=5)
    write(tmp_path / "log.parquet", rows, ABOUT)
    return tmp_path / "log.parquet"


def test_every_route_is_recorded_and_nothing_twice() -> None:
    answers = Table()
    rows = record(answers, [TASKS[0].question], tuple(KNOWN), depth=5)
    calls = [ask for ask, _ in rows]
    assert len(set(calls)) == len(calls) == sum(map(len, answers.rounds))
    # After nothing, "4" and "no idea": three members each.
    assert {(ask.previous, ask.member) for ask in calls} == {
        (previous, member) for previous in (None, "4", "no idea") for member in KNOWN
    }


def test_the_depth_bounds_what_is_recorded() -> None:
    rows = record(Table(), [TASKS[0].question], tuple(KNOWN), depth=1)
    assert {ask.previous for ask, _ in rows} == {None}


def test_a_replay_answers_as_the_members_did(log: Path) -> None:
    ask = MemberCall("sums", TASKS[0].question)
    replay = Replay(log, ABOUT)
    assert replay.ask([ask]) == [Reply("4", COSTS["sums"], 1.0, None)]
    assert replay.ask([MemberCall("broken", TASKS[0].question, "4")])[0].error == "it is broken"


def test_replay_and_live_give_the_same_episodes(log: Path) -> None:
    def episodes(of: World) -> tuple[list[list[float]], list[list[float]]]:
        env, draw = (
            DynamicEnsembleVectorEnv({"world": of, "num_envs": 4}),
            np.random.default_rng(0),
        )
        seen, _ = env.reset(seed=2)
        observed, paid = [], []
        for _ in range(30):
            seen, rewards, *_ = env.step(draw.integers(0, 4, 4))
            observed += seen[OBSERVATION].tolist()
            paid.append(rewards.tolist())
        return observed, paid

    live = world()
    replayed = World(live.members, TASKS, Replay(log), live.quality, Shape(), live.reward)
    assert episodes(live) == episodes(replayed)


def test_what_was_not_recorded_is_refused(log: Path) -> None:
    with pytest.raises(Unrecorded, match=r"'sums' to 'Who\?' after nothing.*orchestrion record"):
        Replay(log).ask([MemberCall("sums", "Who?")])


def test_a_log_of_other_conditions_is_refused(log: Path) -> None:
    with pytest.raises(ConfigError, match="recorded with seed 1, and 2 is configured"):
        Replay(log, {**ABOUT, "seed": 2})


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="orchestrion record"):
        Replay(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ConfigError, match="cannot read"):
        Replay(tmp_path / "text.parquet")
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="lacks the columns previous"):
        Replay(tmp_path / "other.parquet")
