"""Training a router on preferences: RLlib's behaviour cloning with class weights."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
import torch
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import POLICY_LOSS_KEY
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from envs.token_routing.config import PreferenceSettings
from envs.token_routing.env import LARGE, SMALL
from envs.token_routing.preferences import states
from envs.token_routing.rl_module import RouterModule
from envs.token_routing.router_net import RouterNet, folded
from envs.training.behavior_cloning import cloning
from runtime.artifacts.mlp import Layers
from runtime.errors import ConfigError

ROWS = "actions.parquet"
CRITIC = (64,)


@dataclass(frozen=True, slots=True)
class TrainedRouter:
    """The result of a training."""

    layers: Layers
    state: dict[str, Any]
    """State of the module, as the start of tuning."""
    metrics: dict[str, float]
    """``epochs``, ``loss`` and ``auc`` on the questions that were set aside."""


def save_trained(learnt: TrainedRouter, about: Mapping[str, Any], file: Path) -> None:
    """Writes a round's net, with what it was trained on."""
    net = {name: np.asarray(value) for name, value in learnt.state.items() if _of_net(name)}
    metadata = {"metrics": json.dumps(learnt.metrics), "about": json.dumps(about, sort_keys=True)}
    draft = file.with_suffix(".part")
    save_file(net, draft, metadata)
    draft.replace(file)


def load_trained(about: Mapping[str, Any], file: Path) -> TrainedRouter | None:
    """A stored round trained on the same; ``None`` if there is none. Raises ``ConfigError`` for a
    damaged file."""
    if not file.exists():
        return None
    try:
        with safe_open(file, "numpy") as tensors:
            known = tensors.metadata() or {}
            state = {name: tensors.get_tensor(name) for name in tensors.keys()}
    except (SafetensorError, OSError) as fault:
        raise ConfigError(f"{file}: {fault}; remove it, and the round is trained again") from None
    if known.get("about") != json.dumps(about, sort_keys=True) or "metrics" not in known:
        return None
    net = RouterNet(state["net.wide.weight"].shape[1], 0.0)
    net.load_state_dict({name[4:]: torch.as_tensor(value) for name, value in state.items()})
    return TrainedRouter(folded(net), state, json.loads(known["metrics"]))


def _of_net(name: str) -> bool:
    return name.startswith("net.")


class PreferenceLearner(MARWILTorchLearner):
    """Cross-entropy to the preferred action; the module's config has the weight of large ones."""

    def compute_loss_for_module(
        self, *, module_id: str, config: Any = None, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        logits, actions = fwd_out[Columns.ACTION_DIST_INPUTS], batch[Columns.ACTIONS].long()
        module = self.module[module_id].unwrapped()
        loss = _loss(logits, actions, float(module.model_config["large_weight"]))
        self.metrics.log_value((module_id, POLICY_LOSS_KEY), loss, window=1)
        return loss


def _loss(logits: torch.Tensor, actions: torch.Tensor, large_weight: float) -> torch.Tensor:
    weights = torch.ones(2, dtype=logits.dtype, device=logits.device)
    weights[LARGE] = large_weight
    return torch.nn.functional.cross_entropy(logits, actions, weights)


def set_aside(table: pa.Table, settings: PreferenceSettings) -> np.ndarray:
    """bool ``[rows]``: rows of the question groups held out from training."""
    groups = table["group"].to_pylist()
    known = sorted(set(groups))
    random.Random(settings.seed).shuffle(known)
    aside = set(known[: max(1, round(settings.aside * len(known)))])
    return np.array([group in aside for group in groups])


def train_preferences(table: pa.Table, folder: Path, settings: PreferenceSettings) -> TrainedRouter:
    """A router that prefers what the rows prefer; of all epochs the one with the lowest loss on
    the questions that were set aside."""
    seen = states(table)
    actions = np.where(table["small"].to_numpy() == 1, SMALL, LARGE).astype(np.int64)
    aside = set_aside(table, settings)
    order = np.random.default_rng(settings.seed).permutation(np.flatnonzero(~aside))
    weight = settings.large_weight or _balance(actions[~aside])
    model = {
        "dropout": settings.dropout,
        "critic": list(CRITIC),
        "frozen": False,
        "large_weight": weight,
    }
    space = gym.spaces.Box(-np.inf, np.inf, (seen.shape[1],), np.float32)
    left, wanted = torch.from_numpy(seen[aside]), torch.from_numpy(actions[aside])
    best: tuple[float, dict[str, Any]] = (float("inf"), {})
    since, epochs = 0, 0
    with cloning(
        _episodes(seen[order], actions[order]),
        folder / ROWS,
        RouterModule,
        model,
        (space, gym.spaces.Discrete(2)),
        rate=settings.rate,
        batch=settings.batch,
        seed=settings.seed,
        learner=PreferenceLearner,
    ) as (module, once):
        assert isinstance(module, RouterModule)
        while epochs < settings.epochs and since < settings.patience:
            once()
            epochs += 1
            with torch.inference_mode():
                logits = module._forward({Columns.OBS: left})[Columns.ACTION_DIST_INPUTS]
            loss = float(_loss(logits, wanted, weight))
            since += 1
            if loss < best[0]:
                best, since = (loss, copy.deepcopy(module.get_state())), 0
        module.set_state(best[1])
        with torch.inference_mode():
            logits = module._forward({Columns.OBS: left})[Columns.ACTION_DIST_INPUTS]
        figures = {
            "epochs": float(epochs),
            "loss": best[0],
            "auc": auc((logits[:, SMALL] - logits[:, LARGE]).numpy(), wanted.numpy() == SMALL),
        }
        return TrainedRouter(folded(module.net), best[1], figures)


def _balance(actions: np.ndarray) -> float:
    large = max(int((actions == LARGE).sum()), 1)
    return max(1.0, float(np.sqrt((len(actions) - large) / large)))


def _episodes(seen: np.ndarray, actions: np.ndarray) -> pa.Table:
    """Each row as an episode of one step, since later steps have no effect."""
    count = len(actions)
    return pa.table(
        {
            Columns.EPS_ID: [str(place) for place in range(count)],
            Columns.OBS: list(seen),
            Columns.ACTIONS: actions,
            Columns.REWARDS: np.zeros(count, dtype=np.float32),
            Columns.NEXT_OBS: list(seen),
            Columns.TERMINATEDS: np.ones(count, dtype=bool),
            Columns.TRUNCATEDS: np.zeros(count, dtype=bool),
        }
    )


def auc(values: np.ndarray, good: np.ndarray) -> float:
    """The chance that of two tokens the one that the small member may write has the higher value;
    0.5 where there is only one kind."""
    from scipy.stats import rankdata

    ranks = rankdata(values)
    n, m = int(good.sum()), int((~good).sum())
    if n == 0 or m == 0:
        return 0.5
    return float((ranks[good].sum() - n * (n + 1) / 2) / (n * m))
