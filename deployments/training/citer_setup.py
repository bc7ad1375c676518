"""Builds the world of token routing's environments and collectors from a training configuration."""

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
"""One world for each setup of a process."""


@dataclass(frozen=True)
class PairSetup:
    """A training configuration with its Serve config. Calling it builds the world of this process;
    it is pickled to collectors and RLlib's runners."""

    training: TokenTrainingConfig
    app: AppConfig
    served: bool = True
    """Whether members are behind Serve handles; otherwise they run in this process."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def citer(self) -> CITERConfig:
        """The ensemble that uses the router. Raises ``ConfigError`` if it is not of type citer."""
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
        """Closes the world of this process; the next call builds a new one."""
        if self.token in _WORLDS:
            _WORLDS.pop(self.token).close()

    def make(self, backends: Backends) -> TokenWorld:
        """A new world. Raises ``ConfigError``."""
        training = self.training
        tasks = read_questions(Path(training.questions), training.limit)
        if not tasks:
            raise ConfigError(f"{training.questions} has no questions; name another file")
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
        """The application with both members only."""
        members = {name: self.app.members[name] for name in self.citer.pair}
        nothing: dict[str, Any] = {"ensembles": {}, "encoders": {}, "reward_models": {}}
        return self.app.model_copy(update={"members": members, **nothing})

    @property
    def provenance(self) -> dict[str, Any]:
        """The origin of preferences, which is recorded with them: members, questions and
        settings."""
        training = self.training
        members = {}
        for name in self.citer.pair:
            engine = self.app.members[name].engine.model_dump(mode="json")
            source = {key: engine.get(key) for key in ("type", "weights", "sha256", "dtype")}
            members[name] = source | {"stop": list(self.app.members[name].stop)}
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
        """The conditions of the tuning's checkpoints: everything but the number of iterations."""
        fields = {"quality", "reward", "rounds", "preference", "ppo", "limit", "max_tokens"}
        training = self.training.model_dump(mode="json", include=fields)
        if training["ppo"] is not None:
            training["ppo"].pop("iterations")
        return {"training": training, "from": self.provenance}

    @property
    def fingerprint(self) -> str:
        """Identifies the training in an export: 12 hexadecimal digits."""
        about = json.dumps(self.about, sort_keys=True).encode()
        return hashlib.sha256(about).hexdigest()[:12]

    def limited(self, limit: int) -> PairSetup:
        """The same setup with the first ``limit`` questions."""
        training = self.training.model_copy(update={"limit": limit})
        return dataclasses.replace(self, training=training, token=uuid.uuid4().hex)


def load_pair_setup(path: Path) -> PairSetup:
    """Reads both files. Raises ``ConfigError`` that names file, line, key and remedy."""
    document, node = read_yaml(path)
    training = validated(TokenTrainingConfig, document, path, node)
    setup = PairSetup(training, load(Path(training.serve))[1])
    _ = setup.citer  # a wrong name fails now, not after the members have started
    return setup
