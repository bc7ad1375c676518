"""DER as a Markov decision process (arXiv 2412.07448): pure, without members and without Gymnasium.

State: the question, the last answer and how many calls were made. Action: whom to ask next, or
stop. A call's reward is what it gains and costs; how the episode ends brings a bonus or a penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from runtime.config.base import Strict


class RewardConfig(Strict):
    """Numbers are the paper's but for ``alpha``, whose unit is that of the costs; what else differs
    says so."""

    alpha: float = Field(1.0, ge=0)
    """Weight of a call's cost."""
    beta: float = Field(5.0, ge=0)
    """Weight of what a call adds to the quality of the answer before it."""
    gamma: float = Field(2.0, ge=0)
    """Bonus when the episode ends with an answer that is good enough, penalty when it is not."""
    threshold: float = Field(0.73, ge=0, le=1)
    """Quality that is good enough: P0."""
    t_max: int = Field(5, ge=1)
    """Calls at most."""
    first_gains: bool = True
    """The first answer gains what it is worth, as if nothing had been said before it. ``False`` is
    the paper's: then it pays to ask a bad member first and to gain on its answer."""
    ends: Literal["stop", "threshold"] = "stop"
    """``stop``: the agent learns to stop; the quality of an answer counts once, at the end, since a
    quality paid for every call would teach it to ask on for ever. ``threshold`` is the paper's
    training: the episode ends by itself as soon as an answer is good enough, which takes somebody
    who knows, and every call is paid its quality."""


@dataclass(frozen=True, slots=True)
class State:
    """Where an episode stands."""

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
    """What an action led to."""

    state: State
    reward: float
    terminated: bool


def called(
    state: State, member: str, answer: str | None, quality: float, cost: float, config: RewardConfig
) -> Step:
    """After a call. ``answer`` is ``None`` where it failed: it costs, and the last answer stays."""
    kept = state.quality if answer is None else quality
    after = replace(
        state,
        answer=state.answer if answer is None else answer,
        quality=kept,
        calls=state.calls + 1,
        cost=state.cost + cost,
        route=(*state.route, member),
    )
    reward = -config.alpha * cost
    if config.first_gains or state.answer is not None:
        reward += config.beta * (kept - state.quality)
    enough = after.answer is not None and kept >= config.threshold
    paper = config.ends == "threshold"
    ended = after.calls >= config.t_max or (paper and enough)
    if paper:
        reward += kept
    if ended:
        reward += _ending(after, config)
    return Step(after, reward, ended)


def stopped(state: State, config: RewardConfig) -> Step:
    """After the agent has stopped. Without an answer, as before the first call, that is as bad as a
    worthless one."""
    return Step(state, _ending(state, config), True)


def _ending(state: State, config: RewardConfig) -> float:
    enough = state.answer is not None and state.quality >= config.threshold
    told = state.quality if config.ends == "stop" else 0.0
    return told + (config.gamma if enough else -config.gamma)
