"""Several judges as one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from deployments.config.app_config import AppConfig
from runtime.config.engines import EchoEngine, TableEngine
from runtime.config.members import MemberConfig, ReplicaConfig
from runtime.config.reward_models import RewardEnsembleConfig, StepTagReward
from runtime.errors import ContextOverflow, EngineFault
from runtime.rewards import RewardModelConfig, build_reward_model
from runtime.rewards.base import Judged, Reasoning, judge_all
from runtime.rewards.ensemble import RewardEnsemble

SHORT, LONG = Reasoning("q", ("a", "b")), Reasoning("q", ("a",) * 9)


class Fixed:
    """Says the same of every step; holds so many."""

    def __init__(self, value: float, room: int = 99) -> None:
        self.value, self.room, self.closed, self.well = value, room, False, True

    async def score_steps(self, chains: Sequence[Reasoning]) -> list[list[float]]:
        for chain in chains:
            if len(chain.steps) > self.room:
                raise ContextOverflow("fixed", len(chain.steps), self.room)
        return [[self.value] * (len(chain.steps) - chain.since) for chain in chains]

    async def check(self) -> None:
        if not self.well:
            raise EngineFault("it is gone")

    async def close(self) -> None:
        self.closed = True


async def test_the_mean_or_the_least_is_taken() -> None:
    judges = [Fixed(0.2), Fixed(0.6), Fixed(1.0)]
    chains = [SHORT, Reasoning("q", ("a", "b"), since=1), Reasoning("q", ())]
    assert await RewardEnsemble(judges, "mean").score_steps(chains) == [
        pytest.approx([0.6, 0.6]),
        pytest.approx([0.6]),
        [],
    ]
    assert (await RewardEnsemble(judges, "min").score_steps(chains))[0] == [0.2, 0.2]


async def test_a_chain_that_one_cannot_hold_fails_alone() -> None:
    model = RewardEnsemble([Fixed(0.2), Fixed(0.6, room=4)], "mean")
    scores: list[Judged] = await judge_all(model, [SHORT, LONG])
    assert scores[0] == pytest.approx([0.4, 0.4]) and isinstance(scores[1], ContextOverflow)


async def test_all_are_checked_and_closed() -> None:
    judges = [Fixed(0.2), Fixed(0.6)]
    model = RewardEnsemble(judges, "mean")
    await model.check()
    judges[1].well = False
    with pytest.raises(EngineFault):
        await model.check()
    await model.close()
    assert all(judge.closed for judge in judges)


def judge(**row: float) -> StepTagReward:
    table = TableEngine(vocabulary=("a", "#", "+", "-"), table={"a#": row}, floor=1e-6)
    return StepTagReward(engine=table, tag="#", step="{text}{tag}", template="{question}{steps}")


def several() -> RewardModelConfig:
    judges = (judge(**{"+": 3, "-": 1}), judge(**{"+": 1, "-": 3}))
    return RewardModelConfig(
        judge=RewardEnsembleConfig(judges=judges), replica=ReplicaConfig(num_cpus=0.5)
    )


async def test_they_are_built_from_their_configurations() -> None:
    model = build_reward_model(several())
    [values] = await model.score_steps([Reasoning("a", ("a",))])
    assert values == pytest.approx([0.5], abs=1e-4)
    await model.close()


def test_all_have_their_weights_fetched_and_one_replica_between_them() -> None:
    config = AppConfig(
        members={"a": MemberConfig(engine=EchoEngine())}, reward_models={"prm": several()}
    )
    served = {name: member.replica.num_cpus for name, member in config.served.items()}
    assert served == {"a": 1.0, "prm": 0.5, "prm (2)": 0.0}


def test_one_is_not_several() -> None:
    with pytest.raises(ValidationError, match="at least 2"):
        RewardEnsembleConfig(judges=(judge(**{"+": 1}),))
