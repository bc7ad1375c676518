"""Ray actors that collect preferences from live members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from envs.token_routing.env import MakeTokenWorld
from envs.token_routing.preferences import Round, collect, table_of
from runtime.data.questions import Question

TOGETHER = 32
"""Questions with concurrent calls, in each actor."""


@ray.remote(num_cpus=0.2)
class Collector:
    """An actor with its own connections to both members."""

    def __init__(self, make: MakeTokenWorld) -> None:
        self._world = make({})

    def collect(self, tasks: Sequence[Question], round_: Round) -> list[dict[str, Any]]:
        members: Any = self._world.members
        return collect(members, self._world.quality, tasks, round_)

    def close(self) -> None:
        self._world.close()


def collect_all(
    make: MakeTokenWorld,
    tasks: Sequence[Question],
    round_: Round,
    actors: int,
    about: Mapping[str, Any],
    done: Callable[[], None],
) -> pa.Table:
    """Rows for all tasks, in their order; ``done`` is called for each task. Raises what an actor
    raises."""
    actor: Any = Collector  # what the decorator makes of a class is not typed
    collectors = [actor.remote(make) for _ in range(actors)]
    parts = [tasks[at : at + TOGETHER] for at in range(0, len(tasks), TOGETHER)]
    try:
        pool = ray.util.ActorPool(collectors)
        rows: list[dict[str, Any]] = []
        results = pool.map(lambda actor, part: actor.collect.remote(part, round_), parts)
        for part, part_rows in zip(parts, results, strict=True):
            rows += part_rows
            for _ in part:
                done()
        ray.get([collector.close.remote() for collector in collectors])
    finally:
        for collector in collectors:
            ray.kill(collector)
    return table_of(rows, about)
