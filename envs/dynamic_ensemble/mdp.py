"""DER as a Markov decision process (arXiv 2412.07448): pure, without members and without Gymnasium.

State: the question, the last answer and how many calls were made. Action: the member to call next,
or stop. A call's reward is what it gains and costs; how the episode ends brings a bonus or a
penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from runtime.config.base import Strict


class RewardConfig(Strict):
    """Defaults are the paper's except ``alpha``, whose unit is that of the costs; other deviations
    are noted."""

    alpha: float = Field(1.0, ge=0)
    """Weight of a call's cost."""
    beta: float = Field(5.0, ge=0)
    """Weight of the quality that a call adds to the previous answer's."""
    gamma: float = Field(2.0, ge=0)
    """Bonus when the episode ends with an answer that is good enough, penalty when it is not."""
    threshold: float = Field(0.73, ge=0, le=1)
    """P0: quality from which an answer is good enough."""
    t_max: int = Field(5, ge=1)
    """Calls at most."""
    first_gains: bool = True
    """The first answer gains its quality over 0. ``False`` as in the paper: then calling a bad
    member first and improving on it is rewarded."""
    ends: Literal["stop", "threshold"] = "stop"
    """``stop``: the agent learns to stop; the quality counts once, at the end, since a reward for
    every call's quality would favour endless calls. ``threshold`` as in the paper's training: the
    episode ends as soon as an answer is good enough, which needs reference answers, and every call
    is rewarded its quality."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of an episode."""

    question: str
    answer: str | None = None
    """The last one; ``None`` before the first and while every call has failed."""
    quality: float = 0.0
    """Of the last answer, in [0, 1]."""
    calls: int = 0
    cost: float = 0.0
    route: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """The result of an action."""

    state: State
    reward: float
    terminated: bool


def called(
    state: State, member: str, answer: str | None, quality: float, cost: float, config: RewardConfig
) -> Step:
    """The step of a call. ``answer`` is ``None`` for a failed call, which costs; the last answer
    stays."""
    quality_now = state.quality if answer is None else quality
    after = replace(
        state,
        answer=state.answer if answer is None else answer,
        quality=quality_now,
        calls=state.calls + 1,
        cost=state.cost + cost,
        route=(*state.route, member),
    )
    reward = -config.alpha * cost
    if config.first_gains or state.answer is not None:
        reward += config.beta * (quality_now - state.quality)
    enough = after.answer is not None and quality_now >= config.threshold
    paper = config.ends == "threshold"
    ended = after.calls >= config.t_max or (paper and enough)
    if paper:
        reward += quality_now
    if ended:
        reward += _ending(after, config)
    return Step(after, reward, ended)


def stopped(state: State, config: RewardConfig) -> Step:
    """The step of stopping. Without an answer the quality is 0."""
    return Step(state, _ending(state, config), True)


def _ending(state: State, config: RewardConfig) -> float:
    enough = state.answer is not None and state.quality >= config.threshold
    final = state.quality if config.ends == "stop" else 0.0
    return final + (config.gamma if enough else -config.gamma)
