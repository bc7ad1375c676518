"""Builds the world of DER's environments from a training configuration."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deployments.config.app_config import AppConfig
from deployments.config.error_messages import validated
from deployments.config.serve_file import load
from deployments.config.yaml_nodes import read_yaml
from deployments.launch.backends import Backends, InProcessBackends, ServeBackends
from deployments.wiring import connect
from envs.dynamic_ensemble.config import LoggedAnswers, TrainingConfig
from envs.dynamic_ensemble.env import World
from envs.dynamic_ensemble.observations import Encoded
from envs.members.base import AnswerSource
from envs.members.cached import CachedAnswers
from envs.members.event_loop import EventLoopThread
from envs.members.live import LiveMembers, unlimited
from envs.quality.build import build_quality
from envs.quality.config import RewardModelConfig
from envs.quality.reward_model import Judge
from policies.cascade.sequential.der import DERConfig
from runtime.data.query_log import Replay
from runtime.data.questions import read_questions
from runtime.encoders.client import Encoder, EncoderConnection
from runtime.errors import ConfigError
from runtime.observability.metrics import Counts
from runtime.observability.recorder import AnswerRecorder
from runtime.rewards.base import Reasoning
from runtime.rewards.client import Judge as ReasoningJudge
from runtime.rewards.client import RewardConnection
from runtime.types.sampling import Sampling

_WORLDS: dict[str, World] = {}
"""One world for each setup of a process: its environments share members and cached answers."""


@dataclass(frozen=True)
class Setup:
    """A training configuration with its Serve config. Calling it builds the world of this process;
    it is pickled to RLlib's runners."""

    training: TrainingConfig
    app: AppConfig
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def der(self) -> DERConfig:
        """The ensemble that uses the agent. Raises ``ConfigError`` if it is not of type der."""
        name = self.training.ensemble
        found = self.app.ensembles.get(name)
        if not isinstance(found, DERConfig):
            known = [key for key, one in self.app.ensembles.items() if isinstance(one, DERConfig)]
            raise ConfigError(
                f"{self.training.serve} has no ensemble {name!r} of type der; it has "
                f"{', '.join(known) or 'none'}"
            )
        return found

    @property
    def sampling(self) -> Sampling:
        """Sampling of the members in training: that of the ensemble."""
        der = self.der
        return Sampling(
            max_tokens=self.training.max_tokens,
            temperature=der.temperature,
            top_p=der.top_p,
            seed=self.training.ppo.seed,
        )

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions of recorded answers; a replay under other conditions is refused."""
        members = {}
        for name in self.der.members:
            member = self.app.members[name].model_dump(mode="json", include={"price", "stop"})
            engine = self.app.members[name].engine.model_dump(mode="json")
            members[name] = member | {"weights": engine.get("weights"), "type": engine["type"]}
        sampling = self.sampling
        return {
            "members": members,
            "prompts": self.der.transfers(),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }

    @property
    def live(self) -> bool:
        return not isinstance(self.training.answers, LoggedAnswers)

    def __call__(self, config: Mapping[str, Any]) -> World:
        if self.token not in _WORLDS:
            _WORLDS[self.token] = self.make(
                ServeBackends(self.app) if self.live else InProcessBackends(self.app)
            )
        return _WORLDS[self.token]

    def close(self) -> None:
        """Closes the world of this process; the next call builds a new one."""
        if self.token in _WORLDS:
            _WORLDS.pop(self.token).close()

    def make(self, backends: Backends) -> World:
        """A new world. Raises ``ConfigError``."""
        training, der = self.training, self.der
        tasks = read_questions(Path(training.questions), training.limit)
        if not tasks:
            raise ConfigError(f"{training.questions} has no questions; name another file")
        loop = EventLoopThread("training")
        members = self.members(backends, loop)
        answers: AnswerSource = members
        if isinstance(training.answers, LoggedAnswers):
            answers = Replay(Path(training.answers.path), self.conditions)
        elif training.answers.remember and der.temperature == 0:
            answers = CachedAnswers(members)
        judge = None
        if isinstance(training.quality, RewardModelConfig):
            judge = self._judge(training.quality.reward, backends, loop)
        return World(
            members=der.members,
            tasks=tasks,
            answers=answers,
            quality=build_quality(training.quality, judge),
            features=Encoded(self._encode(members, backends, loop), training.reward.t_max, tasks),
            reward=training.reward,
            loop=loop,
        )

    def members(self, backends: Backends, loop: EventLoopThread) -> LiveMembers:
        """The ensemble's members, connected on the first call."""
        configs = {name: self.app.members[name] for name in self.der.members}
        return LiveMembers(
            lambda: connect(configs, backends.members(tuple(configs))),
            self.sampling,
            self.der.transfers(),
            Counts(),
            loop,
        )

    def _encode(
        self, members: LiveMembers, backends: Backends, loop: EventLoopThread
    ) -> Callable[[Sequence[str]], np.ndarray]:
        own = self.app.own_encoder(self.der)
        if own is None:
            return partial(members.embed, self.der.encoder)
        report = AnswerRecorder("training", Counts())
        connection = EncoderConnection(own, self.app.encoders[own], backends.encoder(own))

        async def encode(texts: Sequence[str]) -> np.ndarray:
            encoder = Encoder(connection, unlimited(own, report))
            return np.stack(await asyncio.gather(*map(encoder.encode, texts)))

        return lambda texts: loop.run(encode(texts))

    def _judge(self, name: str, backends: Backends, loop: EventLoopThread) -> Judge:
        if name not in self.app.reward_models:
            known = ", ".join(self.app.reward_models) or "none"
            raise ConfigError(f"quality.reward: there is no reward model {name!r}; known: {known}")
        report = AnswerRecorder("training", Counts())
        connection = RewardConnection(name, self.app.reward_models[name], backends.judge(name))

        async def judge(chains: Sequence[Reasoning]) -> list[float]:
            client = ReasoningJudge(connection, unlimited(name, report))
            scores = await asyncio.gather(
                *(client.score_steps(chain.question, chain.steps, chain.since) for chain in chains)
            )
            return [values[-1] for values in scores]

        return lambda chains: loop.run(judge(chains))

    @property
    def reads(self) -> dict[str, Any]:
        """The identity of the encoder, independent of its name."""
        own = self.app.own_encoder(self.der)
        if own is not None:
            return self.app.encoders[own].identity
        engine = self.app.members[self.der.encoder].engine.model_dump(mode="json")
        return {"weights": engine.get("weights"), "type": engine["type"]}

    @property
    def about(self) -> dict[str, Any]:
        """The conditions of a run's checkpoints: everything but iterations and checkpoint
        interval."""
        training = self.training.model_dump(mode="json", exclude={"run", "checkpoint_every", "out"})
        training["ppo"].pop("iterations")
        questions = Path(self.training.questions).read_bytes()
        return {
            "training": training,
            "conditions": self.conditions,
            "encoder": self.reads,
            "questions_sha256": hashlib.sha256(questions).hexdigest(),
        }

    @property
    def fingerprint(self) -> str:
        """Identifies the training in an export: 12 hexadecimal digits."""
        about = json.dumps(self.about, sort_keys=True).encode()
        return hashlib.sha256(about).hexdigest()[:12]


def load_setup(path: Path, iterations: int | None = None) -> Setup:
    """Reads both files. Raises ``ConfigError`` that names file, line, key and remedy."""
    document, node = read_yaml(path)
    if iterations is not None:
        document["ppo"] = {**(document.get("ppo") or {}), "iterations": iterations}
    training = validated(TrainingConfig, document, path, node)
    setup = Setup(training, load(Path(training.serve))[1])
    _ = setup.der  # a wrong name fails now, not after the members have started
    return setup
