"""Behaviour cloning by RLlib over rows of states and actions, stored as Parquet."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import pyarrow as pa
import pyarrow.parquet as pq
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule


@contextmanager
def cloning(
    table: pa.Table,
    file: Path,
    module: type[TorchRLModule],
    model: Mapping[str, Any],
    spaces: tuple[gym.Space[Any], gym.Space[Any]],
    *,
    rate: float,
    batch: int,
    seed: int,
    learner: type | None = None,
) -> Iterator[tuple[TorchRLModule, Callable[[], Any]]]:
    """Yields the module and a function that trains one epoch over ``table`` (RLlib's columns),
    which is written to ``file``. ``learner`` replaces BC's loss."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    learners: dict[str, Any] = {} if learner is None else {"learner_class": learner}
    algorithms = [
        BCConfig()
        .environment(observation_space=spaces[0], action_space=spaces[1])
        .training(lr=rate, train_batch_size_per_learner=batch)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=dict(model)))
        .offline_data(
            input_=[str(file.resolve())],
            input_read_method="read_parquet",
            # One preparing actor with little CPU: the default takes both CPUs of a small machine,
            # and the reader that it waits for never starts.
            map_batches_kwargs={"concurrency": 1, "num_cpus": 0.1},
            dataset_num_iters_per_learner=max(1, len(table) // batch),
        )
        .learners(num_learners=0, num_gpus_per_learner=0, **learners)
        .debugging(seed=seed, log_level="ERROR")
        .build_algo()
    ]
    quiet = logging.getLogger("ray.data")
    level = quiet.level
    quiet.setLevel(logging.WARNING)
    try:
        learnt = algorithms[0].learner_group._learner.module["default_policy"]
        yield learnt, lambda: algorithms[0].train()
    finally:
        quiet.setLevel(level)
        algorithms.pop().stop()
        gc.collect()  # Ray Data's iterators want Ray to be there when they end
