"""Members for environments: what each knows is in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.dynamic_ensemble.env import World
from envs.dynamic_ensemble.mdp import RewardConfig, State
from envs.quality.config import ExactMatchConfig
from envs.quality.text_match import ExactMatch
from runtime.data.query_log import MemberCall, Reply
from runtime.data.questions import Question

TASKS = (Question("How much is 2 + 2?", "4"), Question("Who barks?", "dog"))
KNOWN = {
    "sums": {"How much is 2 + 2?": "4"},
    "animals": {"Who barks?": "dog"},
    "broken": None,
}
COSTS = {"sums": 0.1, "animals": 0.3, "broken": 0.05}


class Table:
    """Who does not know says "no idea"; ``None`` instead of a table fails always."""

    def __init__(self, known: Mapping[str, Mapping[str, str] | None] = KNOWN) -> None:
        self.known = known
        self.rounds: list[list[MemberCall]] = []
        self.closed = False

    def ask(self, calls: Sequence[MemberCall]) -> list[Reply]:
        self.rounds.append(list(calls))
        return [self._reply(call) for call in calls]

    def _reply(self, call: MemberCall) -> Reply:
        table = self.known[call.member]
        if table is None:
            return Reply(None, COSTS[call.member], error="it is broken")
        return Reply(table.get(call.question, "no idea"), COSTS[call.member], seconds=1.0)

    def close(self) -> None:
        self.closed = True


class Shape:
    """Which question it is, how many calls were made, and what the last answer was."""

    size = 4
    scale = None

    def encode(self, states: Sequence[State]) -> np.ndarray:
        rows = [
            [
                float("barks" in state.question),
                state.calls / 5,
                float(state.answer is not None),
                float(state.answer == "no idea"),
            ]
            for state in states
        ]
        return np.array(rows, dtype=np.float32)


def world(answers: Table | None = None, reward: RewardConfig | None = None) -> World:
    return World(
        members=tuple(KNOWN),
        tasks=TASKS,
        answers=answers or Table(),
        quality=ExactMatch(ExactMatchConfig()),
        features=Shape(),
        reward=reward or RewardConfig(),
    )
