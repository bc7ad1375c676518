"""What ``orchestrion train citer`` stores of a round, and when it takes it again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deployments.training.citer import _rounds
from envs.token_routing import collectors, preference_training
from envs.token_routing.config import PreferenceSettings
from envs.token_routing.preference_training import TrainedRouter
from envs.token_routing.preferences import collect, table_of, write
from envs.token_routing.router_net import RouterNet, folded
from tests.support.models.table_pair import FIRST, QUALITY, TASKS, WIDTH, Pair, world


def test_a_round_of_incomplete_preferences_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup: Any = SimpleNamespace(
        provenance={"members": "a pair"},
        fingerprint={},
        citer=SimpleNamespace(threshold=0.5, router=str(tmp_path / "router")),
        training=SimpleNamespace(
            rounds=1,
            folder=tmp_path,
            max_tokens=8,
            collectors=1,
            out=None,
            reward=SimpleNamespace(good=0.5),
            preference=PreferenceSettings(),
        ),
    )
    pairs = [Pair(lost=TASKS[0].question), Pair()]
    trained: list[int] = []

    def collected(_: Any, tasks: Any, round_: Any, actors: int, about: Any, done: Any) -> pa.Table:
        return table_of(collect(pairs.pop(0), QUALITY, tasks, round_), about)

    def train(table: pa.Table, folder: Path, settings: PreferenceSettings) -> TrainedRouter:
        trained.append(len(table))
        net = RouterNet(WIDTH, 0.0)
        state = {f"net.{name}": np.asarray(value) for name, value in net.state_dict().items()}
        return TrainedRouter(folded(net), state, {"epochs": 1.0, "loss": 0.0, "auc": 0.5})

    monkeypatch.setattr(collectors, "collect_all", collected)
    monkeypatch.setattr(preference_training, "train_preferences", train)
    # What another run has left, under other conditions, says nothing about this one.
    write(tmp_path / "preferences_1.parquet", table_of(collect(Pair(), QUALITY, TASKS, FIRST), {}))
    for _ in range(3):
        _rounds(setup, world(), fresh=False)
    part, whole = trained  # of three runs the last took what the second had stored
    assert part < whole and not pairs
