"""DER's environment (arXiv 2412.07448) for Gymnasium: call a member, or stop.

The official code does not run as published. Deviations that correct it:

- It reads the encoder's state at the last position of right-padded text, which is padding. Here the
  encoder returns the state of the text's last token, or the mean over its tokens.
- It sums returns across the trajectories of a batch, and its log-probabilities of ``[n, 1]``
  actions broadcast to ``[n, n]``. Returns and probabilities are RLlib's here.
- Its test script has a stop action that its training lacks. Here stopping is an action, masked
  before the first call.
- A member that fails ends its run. Here a failed call costs, and the last answer stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from envs.dynamic_ensemble.mdp import RewardConfig, State, Step, called, stopped
from envs.members.base import AnswerSource
from envs.members.event_loop import EventLoopThread
from envs.quality.base import Quality
from envs.training.vector_env import BatchedVectorEnv
from policies.cascade.sequential.features import Scaling
from runtime.data.query_log import MemberCall
from runtime.data.questions import Question

OBSERVATION, MASK = "observations", "action_mask"


class Features(Protocol):
    """Encodes states for the agent; the policy that serves it uses the same."""

    @property
    def size(self) -> int: ...

    @property
    def scale(self) -> Scaling | None:
        """Of the encoder's vectors, where they are scaled."""
        ...

    def encode(self, states: Sequence[State]) -> np.ndarray:
        """float32 ``[n, size]``, all in [-1, 1]."""
        ...


@dataclass(frozen=True)
class World:
    """Shared by the environments of one process. Its creator closes it after the last of them."""

    members: tuple[str, ...]
    tasks: Sequence[Question]
    answers: AnswerSource
    quality: Quality
    features: Features
    reward: RewardConfig = RewardConfig()
    loop: EventLoopThread | None = None
    """The world's own loop, in which answers, qualities and features are requested."""

    def close(self) -> None:
        self.answers.close()
        if self.loop is not None:
            self.loop.close()

    def spaces(self) -> tuple[gym.spaces.Dict, gym.spaces.Discrete]:
        """Action i calls member i; the last action stops."""
        count = len(self.members) + 1
        seen = gym.spaces.Dict(
            {
                OBSERVATION: gym.spaces.Box(-1.0, 1.0, (self.features.size,), np.float32),
                MASK: gym.spaces.Box(0, 1, (count,), np.int8),
            }
        )
        return seen, gym.spaces.Discrete(count)

    def mask(self, state: State) -> np.ndarray:
        """int8 ``[members + 1]``: allowed actions. No stop before the first call, and none where
        the threshold ends episodes."""
        mask = np.ones(len(self.members) + 1, dtype=np.int8)
        mask[-1] = state.calls > 0 and self.reward.ends == "stop"
        return mask

    def observe(self, states: Sequence[State]) -> dict[str, np.ndarray]:
        """Batched observations."""
        return {
            OBSERVATION: self.features.encode(states),
            MASK: np.stack([self.mask(state) for state in states]),
        }

    def act(
        self, states: Sequence[State], tasks: Sequence[Question], actions: Sequence[int]
    ) -> list[Step]:
        """One action in each state; all calls run concurrently."""
        stop = len(self.members)
        places = [place for place, action in enumerate(actions) if action != stop]
        calls = [
            MemberCall(self.members[actions[i]], states[i].question, states[i].answer)
            for i in places
        ]
        replies = self.answers.ask(calls) if calls else []
        answered = [(i, reply) for i, reply in zip(places, replies, strict=True)]
        judged = [(i, reply.text) for i, reply in answered if reply.text is not None]
        values = self.quality.judge([text for _, text in judged], [tasks[i] for i, _ in judged])
        quality = {i: value for (i, _), value in zip(judged, values, strict=True)}
        reply_of = dict(answered)
        return [
            called(
                state,
                self.members[actions[i]],
                reply_of[i].text,
                quality.get(i, 0.0),
                reply_of[i].cost,
                self.reward,
            )
            if i in reply_of
            else stopped(state, self.reward)
            for i, state in enumerate(states)
        ]


MakeWorld = Callable[[Mapping[str, Any]], World]
"""Makes a process's world from an environment's config."""


def _world(config: Mapping[str, Any]) -> World:
    world = config["world"]
    return world if isinstance(world, World) else world(config)


def _info(state: State, threshold: float) -> dict[str, Any]:
    """The figures that training reports of an episode."""
    return {
        "quality": state.quality,
        "good": float(state.answer is not None and state.quality >= threshold),
        "cost": state.cost,
        "calls": state.calls,
        "route": list(state.route),
    }


class DynamicEnsembleEnv(gym.Env[dict[str, np.ndarray], int]):
    """One question at a time. ``config``: ``world``, a ``World`` or a function that makes one."""

    metadata = {"render_modes": []}

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._world = _world(config)
        self.observation_space, self.action_space = self._world.spaces()
        self._task = self._world.tasks[0]
        self._state = State(self._task.question)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """``options``: ``task``, the number of the question; drawn otherwise."""
        super().reset(seed=seed)
        tasks = self._world.tasks
        number = (options or {}).get("task")
        self._task = tasks[int(self.np_random.integers(len(tasks))) if number is None else number]
        self._state = State(self._task.question)
        return self._observed(), _info(self._state, self._world.reward.threshold)

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        [step] = self._world.act([self._state], [self._task], [int(action)])
        self._state = step.state
        info = _info(step.state, self._world.reward.threshold)
        return self._observed(), step.reward, step.terminated, False, info

    def _observed(self) -> dict[str, np.ndarray]:
        return {key: rows[0] for key, rows in self._world.observe([self._state]).items()}


class DynamicEnsembleVectorEnv(BatchedVectorEnv[State]):
    """A batch of questions. ``config``: ``world`` and ``num_envs``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._world = _world(config)
        super().__init__(int(config["num_envs"]), self._world.tasks, self._world.spaces())

    def first(self, tasks: Sequence[Question]) -> list[State]:
        return [State(task.question) for task in tasks]

    def act(
        self, states: Sequence[State], tasks: Sequence[Question], actions: Sequence[int]
    ) -> tuple[list[State], np.ndarray, np.ndarray]:
        steps = self._world.act(states, tasks, actions)
        rewards = np.array([step.reward for step in steps], dtype=np.float64)
        ended = np.array([step.terminated for step in steps], dtype=bool)
        return [step.state for step in steps], rewards, ended

    def observe(self, states: Sequence[State]) -> dict[str, np.ndarray]:
        return self._world.observe(states)

    def info(self, state: State) -> dict[str, Any]:
        return _info(state, self._world.reward.threshold)
