"""The best route of each question that a log of answers holds."""

from __future__ import annotations

from dataclasses import dataclass

from envs.dynamic_ensemble.env import World
from envs.dynamic_ensemble.mdp import State, Step, called, stopped
from runtime.data.query_log import MemberCall, Replay
from runtime.data.questions import Question


@dataclass(frozen=True, slots=True)
class Choice:
    """A state of a route, the action there, and its step."""

    state: State
    action: int
    step: Step


def best_route(world: World, log: Replay, task: Question, discount: float) -> list[Choice]:
    """The recorded route with the highest discounted return; ties go to the shorter one, then to
    the member configured first. Ends with the action that stops, unless the last call ended it.
    """
    _, route = _best(world, log, task, State(task.question), discount, {})
    return route


def _best(
    world: World,
    log: Replay,
    task: Question,
    state: State,
    discount: float,
    known: dict[tuple[str | None, float, int], tuple[float, list[Choice]]],
) -> tuple[float, list[Choice]]:
    """Return and choices from a state on, independent of earlier rewards."""
    key = (state.answer, state.quality, state.calls)
    if key in known:
        return known[key]
    best: tuple[float, list[Choice]] | None = None
    if world.mask(state)[-1]:
        step = stopped(state, world.reward)
        best = step.reward, [Choice(state, len(world.members), step)]
    for action, member in enumerate(world.members):
        reply = log.find(MemberCall(member, task.question, state.answer))
        if reply is None:  # not recorded so deep
            continue
        quality = 0.0
        if reply.text is not None:
            [quality] = world.quality.judge([reply.text], [task])
        step = called(state, member, reply.text, quality, reply.cost, world.reward)
        rest: tuple[float, list[Choice]] = 0.0, []
        if not step.terminated:
            rest = _best(world, log, task, step.state, discount, known)
            if not rest[1]:
                continue
        value = step.reward + discount * rest[0]
        if best is None or value > best[0] + 1e-12:
            best = value, [Choice(state, action, step), *rest[1]]
    known[key] = best or (0.0, [])
    return known[key]
