"""A trained agent as it is served: safetensors and JSON, numpy only.

``envs/ppo.py`` makes one of a trained network; nothing here knows what trained it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from runtime.errors import ConfigError

FORMAT: Final = "orchestrion-agent-1"
WEIGHTS, ABOUT = "agent.safetensors", "agent.json"


@dataclass(frozen=True)
class Agent:
    """A multilayer perceptron over a state's features: tanh between layers, logits at the end."""

    members: tuple[str, ...]
    """Action i asks member i; the last action stops."""
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    """float32 weights ``[out, in]`` and biases ``[out]``."""
    t_max: int
    encoder: str
    """Name of the encoder that it was trained with."""
    template: str
    """The knowledge transfer prompt that it was trained with."""
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
        state = features.astype(np.float32)
        for number, (weight, bias) in enumerate(self.layers):
            state = state @ weight.T + bias
            if number < len(self.layers) - 1:
                state = np.tanh(state)
        return state

    def save(self, folder: Path) -> None:
        """Writes both files; the JSON last and at once, so that a half-written folder is none."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for number, (weight, bias) in enumerate(self.layers):
            tensors[f"{number}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
            tensors[f"{number}.bias"] = np.ascontiguousarray(bias, dtype=np.float32)
        weights = folder / WEIGHTS
        draft = weights.with_suffix(".part")
        save_file(tensors, draft)
        draft.replace(weights)
        told = {
            "format": FORMAT,
            "members": list(self.members),
            "layers": len(self.layers),
            "t_max": self.t_max,
            "encoder": self.encoder,
            "template": self.template,
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
    if told.get("format") != FORMAT:
        raise ConfigError(
            f"{folder} holds an agent of format {told.get('format')!r}, not {FORMAT}; train it anew"
        )
    if hashlib.sha256(data).hexdigest() != told["sha256"]:
        raise ConfigError(f"{folder}: {WEIGHTS} is not the file that {ABOUT} means; export anew")
    try:
        tensors = load_file(folder / WEIGHTS)
        layers = tuple(
            (tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(told["layers"])
        )
    except (SafetensorError, KeyError) as fault:
        raise ConfigError(f"{folder / WEIGHTS} is damaged ({fault}); export anew") from None
    return Agent(
        members=tuple(told["members"]),
        layers=layers,
        t_max=told["t_max"],
        encoder=told["encoder"],
        template=told["template"],
        about=told["about"],
        version=hashlib.sha256(text.encode() + data).hexdigest()[:12],
    )
