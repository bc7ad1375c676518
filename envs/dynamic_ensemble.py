"""DER's environment (arXiv 2412.07448) for Gymnasium: whom to ask next, or to stop.

The official code cannot be run as it is; what it gets wrong is done otherwise here:

- It reads the encoder's state at the last position of right-padded text, which is padding. Here an
  encoder is asked for the state of the text's own last token, or the mean over its own tokens.
- It adds returns up across the trajectories of a batch, and its log-probabilities of ``[n, 1]``
  actions broadcast to ``[n, n]``. Returns and probabilities are RLlib's here.
- Its test script knows a stop action that its training never had. Here it is an action like the
  others, masked before the first call.
- It names devices by number in the middle of the code. Here they are configured.
- A member that fails ends its run. Here a failed call costs, and the last answer stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.answers import Answers, Ask
from envs.loop import Loop
from envs.mdp import RewardConfig, State, Step, called, stopped
from envs.quality import Quality
from policies.cascade.state import Scaling
from runtime.questions import Question

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
    """All that the environments of one process share. Whoever made it closes it, once the last
    environment is gone."""

    members: tuple[str, ...]
    tasks: Sequence[Question]
    answers: Answers
    quality: Quality
    features: Features
    reward: RewardConfig = RewardConfig()
    loop: Loop | None = None
    """In which answers, qualities and features are asked for; the world's own."""

    def close(self) -> None:
        self.answers.close()
        if self.loop is not None:
            self.loop.close()

    def spaces(self) -> tuple[gym.spaces.Dict, gym.spaces.Discrete]:
        """Action i asks member i; the last action stops."""
        count = len(self.members) + 1
        seen = gym.spaces.Dict(
            {
                OBSERVATION: gym.spaces.Box(-1.0, 1.0, (self.features.size,), np.float32),
                MASK: gym.spaces.Box(0, 1, (count,), np.int8),
            }
        )
        return seen, gym.spaces.Discrete(count)

    def mask(self, state: State) -> np.ndarray:
        """What may be done: everything, but no stop before the first call, and none at all where
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
        """One action in each state; all calls are in flight together."""
        stop = len(self.members)
        places = [place for place, action in enumerate(actions) if action != stop]
        asked = [
            Ask(self.members[actions[i]], states[i].question, states[i].answer) for i in places
        ]
        replies = self.answers.ask(asked) if asked else []
        heard = [(i, reply) for i, reply in zip(places, replies, strict=True)]
        judged = [(i, reply.text) for i, reply in heard if reply.text is not None]
        values = self.quality.judge([text for _, text in judged], [tasks[i] for i, _ in judged])
        quality = {i: value for (i, _), value in zip(judged, values, strict=True)}
        told = dict(heard)
        return [
            called(
                state,
                self.members[actions[i]],
                told[i].text,
                quality.get(i, 0.0),
                told[i].cost,
                self.reward,
            )
            if i in told
            else stopped(state, self.reward)
            for i, state in enumerate(states)
        ]


MakeWorld = Callable[[Mapping[str, Any]], World]
"""Makes a process's world from an environment's config."""


def _world(config: Mapping[str, Any]) -> World:
    world = config["world"]
    return world if isinstance(world, World) else world(config)


def _info(state: State, threshold: float) -> dict[str, Any]:
    """What training reports of an episode."""
    return {
        "quality": state.quality,
        "good": float(state.answer is not None and state.quality >= threshold),
        "cost": state.cost,
        "calls": state.calls,
        "route": list(state.route),
    }


class DynamicEnsembleEnv(gym.Env[dict[str, np.ndarray], int]):
    """One question at a time. ``config``: ``world``, a ``World`` or what makes one."""

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


class DynamicEnsembleVectorEnv(VectorEnv[dict[str, np.ndarray], np.ndarray, np.ndarray]):
    """Many questions side by side, whose calls to members are in flight together.

    Autoreset is gymnasium's ``NEXT_STEP``: the step after an episode's last ignores its action and
    returns the first observation of the next. ``config``: ``world`` and ``num_envs``.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._world = _world(config)
        self.num_envs = int(config["num_envs"])
        self.single_observation_space, self.single_action_space = self._world.spaces()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._tasks = [self._world.tasks[0]] * self.num_envs
        self._states = [State(task.question) for task in self._tasks]
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._draws = [random.Random(place) for place in range(self.num_envs)]

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """``seed``: one for each, or the first of consecutive ones."""
        if isinstance(seed, int):
            seed = [seed + place for place in range(self.num_envs)]
        for place, own in enumerate(seed or ()):
            if own is not None:
                self._draws[place] = random.Random(own)
        for place in range(self.num_envs):
            self._begin(place)
        return self._world.observe(self._states), self._infos()

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        going = [place for place in range(self.num_envs) if not self._ended[place]]
        steps = self._world.act(
            [self._states[i] for i in going],
            [self._tasks[i] for i in going],
            [int(actions[i]) for i in going],
        )
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        ended = np.zeros(self.num_envs, dtype=bool)
        for begun in np.flatnonzero(self._ended).tolist():
            self._begin(begun)
        for place, step in zip(going, steps, strict=True):
            self._states[place] = step.state
            rewards[place], ended[place] = step.reward, step.terminated
        self._ended = ended
        truncated = np.zeros(self.num_envs, dtype=bool)
        return self._world.observe(self._states), rewards, ended, truncated, self._infos()

    def _begin(self, place: int) -> None:
        self._tasks[place] = self._draws[place].choice(self._world.tasks)
        self._states[place] = State(self._tasks[place].question)
        self._ended[place] = False

    def _infos(self) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for place, state in enumerate(self._states):
            infos = self._add_info(infos, _info(state, self._world.reward.threshold), place)
        return infos
