"""CITER's environment (arXiv 2502.01976) for Gymnasium: which member writes the next token.

State: the small member's last-layer state. Action: the small member writes the token, or the large
one. Reward: the answer's quality at its end, less ``alpha`` for each token of the large member's.
Both write greedily, so a place in a text has one state and one token of each, which are requested
once.

A member that fails ends no training: the large one's token costs and the small one's stands; where
the small one fails the episode ends with the text so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from envs.quality.base import Quality
from envs.token_routing.config import TokenReward
from envs.token_routing.model_pair import Look
from envs.training.vector_env import BatchedVectorEnv
from runtime.data.questions import Question
from runtime.types.outputs import Tokens

LARGE, SMALL = 0, 1
"""Actions."""


class Members(Protocol):
    """The interface to two members (envs/token_routing/model_pair.py)."""

    @property
    def width(self) -> int: ...

    def ends(self, ids: Sequence[int]) -> bool: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def looks(self, questions: Sequence[str], answers: Sequence[Tokens]) -> list[Look | None]: ...

    def large_tokens(
        self, questions: Sequence[str], answers: Sequence[Tokens]
    ) -> list[int | None]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """The state of an episode."""

    task: Question
    look: Look | None = None
    """``None`` at the end."""
    ids: tuple[int, ...] = ()
    large: int = 0
    """Tokens that the large member wrote."""
    quality: float = 0.0


@dataclass(frozen=True)
class TokenWorld:
    """Shared by the environments of one process. Its creator closes it."""

    tasks: Sequence[Question]
    members: Members
    quality: Quality
    reward: TokenReward
    most: int
    """Tokens of an answer."""

    def close(self) -> None:
        self.members.close()

    def spaces(self) -> tuple[gym.spaces.Box, gym.spaces.Discrete]:
        space = gym.spaces.Box(-np.inf, np.inf, (self.members.width,), np.float32)
        return space, gym.spaces.Discrete(2)

    def begin(self, tasks: Sequence[Question]) -> list[Place]:
        """Episodes at their first token. If the small member fails, the state is empty and any
        action ends the episode."""
        looks = self.members.looks([task.question for task in tasks], [()] * len(tasks))
        return [Place(task, look) for task, look in zip(tasks, looks, strict=True)]

    def observe(self, places: Sequence[Place]) -> np.ndarray:
        """float32 ``[n, width]``; zeros at an end."""
        seen = np.zeros((len(places), self.members.width), dtype=np.float32)
        for row, place in zip(seen, places, strict=True):
            if place.look is not None:
                row[:] = place.look.state
        return seen

    def act(
        self, places: Sequence[Place], actions: Sequence[int]
    ) -> tuple[list[Place], np.ndarray, np.ndarray]:
        """The places after one token each, rewards ``[n]`` and what has ended ``[n]``. All calls
        are in flight together."""
        rewards = np.zeros(len(places))
        deferred = [i for i, a in enumerate(actions) if a == LARGE and places[i].look is not None]
        tokens = self.members.large_tokens(
            [places[i].task.question for i in deferred], [places[i].ids for i in deferred]
        )
        written = dict(zip(deferred, tokens, strict=True))
        after: list[Place] = []
        for i, place in enumerate(places):
            if place.look is None:
                after.append(place)
                continue
            token = written.get(i)
            count = place.large + (actions[i] == LARGE)
            rewards[i] -= self.reward.alpha * (actions[i] == LARGE)
            own = place.look.own if token is None else token
            after.append(replace(place, ids=(*place.ids, own), large=count))
        most = self.most
        going = [
            i
            for i, place in enumerate(after)
            if place.look is not None and len(place.ids) < most and not self.members.ends(place.ids)
        ]
        looks = self.members.looks(
            [after[i].task.question for i in going], [after[i].ids for i in going]
        )
        looked = dict(zip(going, looks, strict=True))
        ended = np.array([looked.get(i) is None for i in range(len(places))], dtype=bool)
        after = [replace(place, look=looked.get(i)) for i, place in enumerate(after)]
        last = [int(i) for i in np.flatnonzero(ended)]
        texts = [self.members.decode(after[i].ids) for i in last]
        values = self.quality.judge(texts, [after[i].task for i in last]) if last else []
        for i, value in zip(last, values, strict=True):
            after[i] = replace(after[i], quality=value)
            rewards[i] += value
        return after, rewards, ended

    def info(self, place: Place) -> dict[str, Any]:
        """What training reports of an episode; ``cost`` is the large member's share."""
        return {
            "quality": place.quality,
            "good": float(place.look is None and place.quality >= self.reward.good),
            "cost": place.large / max(len(place.ids), 1),
            "calls": len(place.ids),
        }


MakeTokenWorld = Callable[[Mapping[str, Any]], TokenWorld]
"""Makes a process's world from an environment's config."""


def _world(config: Mapping[str, Any]) -> TokenWorld:
    world = config["world"]
    return world if isinstance(world, TokenWorld) else world(config)


class TokenRoutingEnv(gym.Env[np.ndarray, int]):
    """One question at a time. ``config``: ``world``, a ``TokenWorld`` or its factory."""

    metadata = {"render_modes": []}

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._world = _world(config)
        self.observation_space, self.action_space = self._world.spaces()
        self._place = Place(self._world.tasks[0])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """``options``: ``task``, the number of the question; drawn otherwise."""
        super().reset(seed=seed)
        tasks = self._world.tasks
        number = (options or {}).get("task")
        task = tasks[int(self.np_random.integers(len(tasks))) if number is None else number]
        [self._place] = self._world.begin([task])
        return self._world.observe([self._place])[0], self._world.info(self._place)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        [self._place], rewards, ended = self._world.act([self._place], [int(action)])
        seen = self._world.observe([self._place])[0]
        info = self._world.info(self._place)
        return seen, float(rewards[0]), bool(ended[0]), False, info


class TokenRoutingVectorEnv(BatchedVectorEnv[Place]):
    """Many questions side by side. ``config``: ``world``, a ``TokenWorld`` or what makes one, and
    ``num_envs``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._world = _world(config)
        super().__init__(int(config["num_envs"]), self._world.tasks, self._world.spaces())

    def first(self, tasks: Sequence[Question]) -> list[Place]:
        return self._world.begin(tasks)

    def act(
        self, states: Sequence[Place], tasks: Sequence[Question], actions: Sequence[int]
    ) -> tuple[list[Place], np.ndarray, np.ndarray]:
        return self._world.act(states, actions)

    def observe(self, states: Sequence[Place]) -> np.ndarray:
        return self._world.observe(states)

    def info(self, state: Place) -> dict[str, Any]:
        return self._world.info(state)
