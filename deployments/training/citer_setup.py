"""The world that token routing's environments and collectors are in, made of a training's
configuration."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.config.app_config import AppConfig
from deployments.config.error_messages import validated
from deployments.config.serve_file import load
from deployments.config.yaml_nodes import read_yaml
from deployments.launch.backends import Backends, InProcessBackends, ServeBackends
from deployments.wiring import connect
from envs.members.event_loop import EventLoopThread
from envs.quality.build import build_quality
from envs.quality.config import RewardModelConfig
from envs.token_routing.config import TokenTrainingConfig
from envs.token_routing.env import TokenWorld
from envs.token_routing.model_pair import LivePair
from envs.token_routing.preferences import text_of
from policies.token.citer import CITERConfig
from runtime.data.questions import read_questions
from runtime.errors import ConfigError
from runtime.observability.metrics import Counts

_WORLDS: dict[str, TokenWorld] = {}
"""One for each setup in a process."""


@dataclass(frozen=True)
class PairSetup:
    """A training's configuration with the Serve config that it names. Calling it makes the world;
    it travels to collectors and RLlib's runners."""

    training: TokenTrainingConfig
    app: AppConfig
    served: bool = True
    """Members behind Serve handles; otherwise in this process."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def citer(self) -> CITERConfig:
        """The ensemble that the router is for. Raises ``ConfigError``."""
        name = self.training.ensemble
        found = self.app.ensembles.get(name)
        if not isinstance(found, CITERConfig):
            ensembles = self.app.ensembles.items()
            known = [key for key, one in ensembles if isinstance(one, CITERConfig)]
            raise ConfigError(
                f"{self.training.serve} has no ensemble {name!r} of type citer; it has "
                f"{', '.join(known) or 'none'}"
            )
        return found

    def __call__(self, config: Mapping[str, Any]) -> TokenWorld:
        if self.token not in _WORLDS:
            _WORLDS[self.token] = self.make(
                ServeBackends(self.app) if self.served else InProcessBackends(self.app)
            )
        return _WORLDS[self.token]

    def close(self) -> None:
        """Closes this process's world; the next call makes another."""
        if self.token in _WORLDS:
            _WORLDS.pop(self.token).close()

    def make(self, backends: Backends) -> TokenWorld:
        """A new world. Raises ``ConfigError``."""
        training = self.training
        tasks = read_questions(Path(training.questions), training.limit)
        if not tasks:
            raise ConfigError(f"{training.questions} holds no question; name another file")
        for task in tasks:
            text_of(task)
        if isinstance(training.quality, RewardModelConfig):
            raise ConfigError(
                "quality: reward-model judges steps; token routing is trained on exact-match, "
                "token-f1 or bertscore"
            )
        small, large = self.citer.pair
        configs = {name: self.app.members[name] for name in (small, large)}
        pair = LivePair(
            lambda: connect(configs, backends.members(tuple(configs))),
            small,
            large,
            Counts(),
            EventLoopThread("training"),
        )
        quality = build_quality(training.quality)
        return TokenWorld(tasks, pair, quality, training.reward, training.max_tokens)

    @property
    def needed(self) -> AppConfig:
        """The application with both members and nothing else."""
        members = {name: self.app.members[name] for name in self.citer.pair}
        nothing: dict[str, Any] = {"ensembles": {}, "encoders": {}, "reward_models": {}}
        return self.app.model_copy(update={"members": members, **nothing})

    @property
    def provenance(self) -> dict[str, Any]:
        """Where preferences come from: what is recorded with them, and what they hold for."""
        training = self.training
        members = {}
        for name in self.citer.pair:
            engine = self.app.members[name].engine.model_dump(mode="json")
            told = {key: engine.get(key) for key in ("type", "weights", "sha256", "dtype")}
            members[name] = told | {"stop": list(self.app.members[name].stop)}
        questions = Path(training.questions).read_bytes()
        return {
            "small": self.citer.pair[0],
            "large": self.citer.pair[1],
            "members": members,
            "questions_sha256": hashlib.sha256(questions).hexdigest(),
            "limit": training.limit,
            "max_tokens": training.max_tokens,
            "quality": training.quality.model_dump(mode="json"),
            "good": training.reward.good,
        }

    @property
    def about(self) -> dict[str, Any]:
        """What the tuning's checkpoints hold for: all but how long and how often."""
        kept = {"quality", "reward", "rounds", "preference", "ppo", "limit", "max_tokens"}
        training = self.training.model_dump(mode="json", include=kept)
        if training["ppo"] is not None:
            training["ppo"].pop("iterations")
        return {"training": training, "from": self.provenance}

    @property
    def fingerprint(self) -> str:
        """Names the training in an export."""
        told = json.dumps(self.about, sort_keys=True).encode()
        return hashlib.sha256(told).hexdigest()[:12]

    def limited(self, limit: int) -> PairSetup:
        """The same with the first so many questions."""
        training = self.training.model_copy(update={"limit": limit})
        return dataclasses.replace(self, training=training, token=uuid.uuid4().hex)


def load_pair_setup(path: Path) -> PairSetup:
    """Reads both files. Raises ``ConfigError`` that names file, line, key and remedy."""
    document, node = read_yaml(path)
    training = validated(TokenTrainingConfig, document, path, node)
    setup = PairSetup(training, load(Path(training.serve))[1])
    _ = setup.citer  # a wrong name is told now, not after the members have started
    return setup
