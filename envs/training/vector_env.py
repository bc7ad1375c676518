"""Batched episodes, whose calls to members run concurrently."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from runtime.data.questions import Question

S = TypeVar("S")


class BatchedVectorEnv(VectorEnv[Any, np.ndarray, np.ndarray], Generic[S]):
    """Subclasses define the state and the effect of a batch of actions.

    Autoreset is gymnasium's ``NEXT_STEP``: the step after an episode's last ignores its action and
    returns the first observation of the next.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        count: int,
        tasks: Sequence[Question],
        spaces: tuple[gym.Space[Any], gym.Space[Any]],
    ) -> None:
        self.num_envs = count
        self.single_observation_space, self.single_action_space = spaces
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)
        self._choices = tasks
        self._tasks = [tasks[0]] * count
        self._states: dict[int, S] = {}
        self._ended = np.zeros(count, dtype=bool)
        self._draws = [random.Random(place) for place in range(count)]

    @abstractmethod
    def first(self, tasks: Sequence[Question]) -> list[S]:
        """The first states of episodes."""

    @abstractmethod
    def act(
        self, states: Sequence[S], tasks: Sequence[Question], actions: Sequence[int]
    ) -> tuple[list[S], np.ndarray, np.ndarray]:
        """The states after one action each, rewards ``[n]`` and what has ended ``[n]``."""

    @abstractmethod
    def observe(self, states: Sequence[S]) -> Any:
        """Batched observations."""

    @abstractmethod
    def info(self, state: S) -> dict[str, Any]:
        """What training reports of an episode."""

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """``seed``: one for each, or the first of consecutive ones."""
        if isinstance(seed, int):
            seed = [seed + place for place in range(self.num_envs)]
        for place, own in enumerate(seed or ()):
            if own is not None:
                self._draws[place] = random.Random(own)
        self._begin(range(self.num_envs))
        return self.observe(self._all), self._infos()

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        going = np.flatnonzero(~self._ended).tolist()
        rewards, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        after, rewards[going], ended[going] = self.act(
            [self._states[i] for i in going],
            [self._tasks[i] for i in going],
            [int(actions[i]) for i in going],
        )
        self._begin(np.flatnonzero(self._ended).tolist())
        for place, state in zip(going, after, strict=True):
            self._states[place] = state
        self._ended = ended.copy()  # the caller keeps the other
        truncated = np.zeros(self.num_envs, dtype=bool)
        return self.observe(self._all), rewards, ended, truncated, self._infos()

    @property
    def _all(self) -> list[S]:
        return [self._states[place] for place in range(self.num_envs)]

    def _begin(self, places: Iterable[int]) -> None:
        numbers = list(places)
        for place in numbers:
            self._tasks[place] = self._draws[place].choice(self._choices)
        begun = self.first([self._tasks[place] for place in numbers])
        for place, state in zip(numbers, begun, strict=True):
            self._states[place] = state
            self._ended[place] = False

    def _infos(self) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for place, state in enumerate(self._all):
            infos = self._add_info(infos, self.info(state), place)
        return infos
