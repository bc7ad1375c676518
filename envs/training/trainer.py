"""A training run: rounds of PPO, its curve, and checkpoints from which it resumes exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ray.exceptions import RayError
from ray.rllib.core.rl_module.torch import TorchRLModule
from tensorboardX import SummaryWriter

from envs.training.config import PPOSettings
from envs.training.ppo import FreshEnvRunner, TrainingSpec, ppo
from runtime.artifacts.mlp import Layers
from runtime.errors import ConfigError, EngineFault
from runtime.rng import derive_seed

CURVE, SETTINGS, CHECKPOINTS, EVENTS = "curve.jsonl", "settings.json", "checkpoints", "tensorboard"
KEPT: Final = 2
"""Checkpoints that are kept: the newest, and one more in case writing it was interrupted."""


@dataclass(frozen=True, slots=True)
class IterationResult:
    """One iteration; means over the episodes that ended lately."""

    iteration: int
    steps: int
    """Environment steps since the beginning."""
    reward: float
    accuracy: float
    """Share of the episodes whose last answer was good enough."""
    quality: float
    cost: float
    calls: float
    """Length of the routes."""
    entropy: float
    """Of the agent's choice, nats."""


def forget(folder: Path) -> None:
    """Removes a run, and nothing else that is in its folder."""
    for name in (CURVE, SETTINGS):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, EVENTS):
        shutil.rmtree(folder / name, ignore_errors=True)


class Training:
    """PPO in a folder of its own.

    Raises ``ConfigError`` where the folder holds a run with other settings.
    """

    def __init__(
        self,
        settings: PPOSettings,
        world: Callable[[Mapping[str, Any]], Any],
        folder: Path,
        about: Mapping[str, Any],
        every: int,
        spec: TrainingSpec,
    ) -> None:
        self._settings, self._folder, self._every = settings, folder, every
        self._check(about)
        self._algorithm = ppo(settings, world, spec).build_algo()
        self.curve = self._restore()
        self._writer = SummaryWriter(str(folder / EVENTS))

    @property
    def done(self) -> int:
        """Iterations so far, those before a restart included."""
        return len(self.curve)

    @property
    def module(self) -> TorchRLModule:
        """What is trained."""
        return self._algorithm.get_module()

    def start_from(self, layers: Layers) -> None:
        """Loads the weights of an actor trained before, such as a clone of the best routes."""
        state = self.module.get_state()
        for number, (weight, bias) in enumerate(layers):
            state[f"actor.{2 * number}.weight"], state[f"actor.{2 * number}.bias"] = weight, bias
        self.load(state)

    def load(self, state: Mapping[str, Any]) -> None:
        """Loads the weights of a module."""
        learner = {"rl_module": {"default_policy": state}}
        self._algorithm.learner_group.set_state({"learner": learner})
        self._algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=self._algorithm.learner_group
        )

    def run(self, report: Callable[[IterationResult], None]) -> None:
        """Trains until all iterations are done; calls ``report`` after each. Raises ``EngineFault``
        when a runner process dies."""
        while self.done < self._settings.iterations:
            result = self._iterate()
            self.curve.append(result)
            with (self._folder / CURVE).open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
            for name, value in asdict(result).items():
                if name != "iteration":
                    self._writer.add_scalar(name, value, result.iteration)
            if self.done % self._every == 0 or self.done == self._settings.iterations:
                self._save()
            report(result)

    def _iterate(self) -> IterationResult:
        number = self.done + 1
        seed = derive_seed(self._settings.seed, "round", number) % 2**31

        def begin(runner: Any) -> None:
            assert isinstance(runner, FreshEnvRunner)
            runner.begin(seed)

        self._algorithm.env_runner_group.foreach_env_runner(begin)
        try:
            result = self._algorithm.train()
        except RayError as fault:
            raise EngineFault(
                f"a process that collects experience has died ({type(fault).__name__}); start "
                "the run again to resume from its last checkpoint; `runners: 0` shows the fault if "
                "it recurs"
            ) from fault
        met, learnt = result["env_runners"], result["learners"]["default_policy"]
        return IterationResult(
            iteration=number,
            steps=int(result["num_env_steps_sampled_lifetime"]),
            reward=float(met["episode_return_mean"]),
            accuracy=float(met["episode"]["good"]),
            quality=float(met["episode"]["quality"]),
            cost=float(met["episode"]["cost"]),
            calls=float(met["episode"]["calls"]),
            entropy=float(learnt["entropy"]),
        )

    # -- the folder --------------------------------------------------------------------------

    def _check(self, about: Mapping[str, Any]) -> None:
        """Refuses the checkpoints of a run with other settings; more iterations are allowed."""
        settings = json.loads(json.dumps(about))
        file = self._folder / SETTINGS
        if file.exists() and json.loads(file.read_text()) != settings:
            raise ConfigError(
                f"{self._folder} holds a run with other settings; name another folder under run:, "
                "or start over with --fresh"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=1) + "\n")

    def _save(self) -> None:
        folder = self._folder / CHECKPOINTS
        draft = folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        self._algorithm.save_to_path(str(draft.resolve()))
        draft.rename(folder / f"{self.done:06d}")
        for old in sorted(folder.glob("[0-9]*"))[:-KEPT]:
            shutil.rmtree(old)

    def _restore(self) -> list[IterationResult]:
        """Resumes from the newest checkpoint; later iterations are repeated."""
        checkpoints = sorted((self._folder / CHECKPOINTS).glob("[0-9]*"))
        done = int(checkpoints[-1].name) if checkpoints else 0
        file = self._folder / CURVE
        lines = file.read_text().splitlines()[:done] if file.exists() else []
        file.write_text("".join(line + "\n" for line in lines))
        if checkpoints:
            self._algorithm.restore_from_path(str(checkpoints[-1].resolve()))
        return [IterationResult(**json.loads(line)) for line in lines]

    def close(self) -> None:
        """Stops RLlib; what is in the folder stays."""
        self._writer.close()
        self._algorithm.stop()
