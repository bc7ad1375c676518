"""A trained agent as it is served: safetensors and JSON, numpy only.

``envs/training.py`` makes one of a trained network; nothing here knows what trained it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from policies.cascade.state import Scaling
from runtime.errors import ConfigError

FORMAT: Final = "orchestrion-agent-1"
WEIGHTS, ABOUT = "agent.safetensors", "agent.json"


Layers: TypeAlias = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Weights ``[out, in]`` and biases ``[out]`` of a perceptron."""


@dataclass(frozen=True)
class Agent:
    """A multilayer perceptron over a state's features: tanh between layers, logits at the end."""

    members: tuple[str, ...]
    """Action i asks member i; the last action stops."""
    layers: Layers
    """float32 weights ``[out, in]`` and biases ``[out]``."""
    t_max: int
    encoder: str
    """Name of the encoder that it was trained with."""
    prompts: dict[str, str]
    """Each member's knowledge transfer prompt that it was trained with."""
    terminator: Layers = ()
    """Layers of another perceptron, from a state's features to one logit: does the last answer meet
    the threshold? Empty where none was trained."""
    stops: bool = True
    """Whether stopping was an action that it learnt."""
    reads: dict[str, Any] = field(default_factory=dict)
    """What the encoder's vectors depend on, where it was one of its own; told by the encoder."""
    scale: Scaling | None = None
    """Of the encoder's vectors, as in training."""
    about: dict[str, Any] = field(default_factory=dict)
    """How it was trained; told in answers' metadata."""
    version: str = ""
    """Hash of weights and JSON: which agent decided."""

    @property
    def size(self) -> int:
        """Features of a state."""
        return int(self.layers[0][0].shape[1])

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32 ``[n, members + 1]`` from features ``[n, size]``."""
        return through(self.layers, features)

    def good_enough(self, features: np.ndarray) -> np.ndarray:
        """The terminator's probabilities ``[n]`` from features ``[n, size]``."""
        told: np.ndarray = 1 / (1 + np.exp(-through(self.terminator, features)[:, 0]))
        return told

    def save(self, folder: Path) -> None:
        """Writes both files; the JSON last and at once, so that a half-written folder is none."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for part, layers in (("actor", self.layers), ("terminator", self.terminator)):
            for number, (weight, bias) in enumerate(layers):
                tensors[f"{part}.{number}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
                tensors[f"{part}.{number}.bias"] = np.ascontiguousarray(bias, dtype=np.float32)
        if self.scale is not None:
            tensors |= {"center": self.scale.center, "spread": self.scale.spread}
        weights = folder / WEIGHTS
        draft = weights.with_suffix(".part")
        draft.write_bytes(save(tensors))
        draft.replace(weights)
        told = {
            "format": FORMAT,
            "members": list(self.members),
            "layers": len(self.layers),
            "terminator": len(self.terminator),
            "t_max": self.t_max,
            "encoder": self.encoder,
            "prompts": self.prompts,
            "stops": self.stops,
            "reads": self.reads,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "about": self.about,
        }
        draft = (folder / ABOUT).with_suffix(".part")
        draft.write_text(json.dumps(told, indent=1) + "\n")
        draft.replace(folder / ABOUT)


def load_agent(folder: Path) -> Agent:
    """Raises ``ConfigError`` for a folder that holds no agent, or half of one."""
    try:
        text = (folder / ABOUT).read_text()
        told = json.loads(text)
        data = (folder / WEIGHTS).read_bytes()
    except (OSError, json.JSONDecodeError) as fault:
        raise ConfigError(
            f"cannot read an agent from {folder} ({fault}); make one with `orchestrion train der`"
        ) from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else told
        raise ConfigError(
            f"{folder} holds an agent of format {found!r}, not {FORMAT}; train it anew"
        )
    if hashlib.sha256(data).hexdigest() != told.get("sha256"):
        raise ConfigError(f"{folder}: {WEIGHTS} is not the file that {ABOUT} means; export anew")
    try:
        tensors = load(data)
        actor, terminator = (
            tuple(
                (tensors[f"{part}.{i}.weight"], tensors[f"{part}.{i}.bias"]) for i in range(count)
            )
            for part, count in (("actor", told["layers"]), ("terminator", told["terminator"]))
        )
        if len(actor[-1][0]) != len(told["members"]) + 1:
            raise KeyError("the actor's actions are not the members and the end")
        scale = Scaling(tensors["center"], tensors["spread"]) if "center" in tensors else None
        return Agent(
            members=tuple(told["members"]),
            layers=actor,
            t_max=told["t_max"],
            encoder=told["encoder"],
            prompts=told["prompts"],
            stops=told["stops"],
            reads=told["reads"],
            terminator=terminator,
            scale=scale,
            about=told["about"],
            version=hashlib.sha256(text.encode() + data).hexdigest()[:12],
        )
    except (SafetensorError, KeyError, IndexError) as fault:
        raise ConfigError(f"the agent in {folder} is damaged ({fault!r}); export anew") from None


def through(layers: Layers, features: np.ndarray) -> np.ndarray:
    """A perceptron's output ``[n, out]``, tanh between its layers."""
    state = features.astype(np.float32)
    for number, (weight, bias) in enumerate(layers):
        state = state @ weight.T + bias
        if number < len(layers) - 1:
            state = np.tanh(state)
    return state
