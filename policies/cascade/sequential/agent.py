"""A trained agent as it is served: safetensors and JSON, numpy only.

``envs/training/trainer.py`` makes one of a trained network; nothing here knows what trained it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from policies.cascade.sequential.features import Scaling
from runtime.artifacts.files import Kind
from runtime.artifacts.mlp import Layers, tensors_of, through

WEIGHTS, ABOUT = "agent.safetensors", "agent.json"
KIND: Final = Kind("an agent", "orchestrion-agent-1", WEIGHTS, ABOUT, "orchestrion train der")


@dataclass(frozen=True)
class Agent:
    """A multilayer perceptron over a state's features: tanh between layers, logits at the end."""

    members: tuple[str, ...]
    """Action i calls member i; the last action stops."""
    layers: Layers
    """float32 weights ``[out, in]`` and biases ``[out]``."""
    t_max: int
    encoder: str
    """Name of the encoder it was trained with."""
    prompts: dict[str, str]
    """Each member's knowledge transfer prompt that it was trained with."""
    terminator: Layers = ()
    """Layers of another perceptron, from a state's features to one logit: does the last answer meet
    the threshold? Empty where none was trained."""
    stops: bool = True
    """Whether it was trained with a stop action."""
    reads: dict[str, Any] = field(default_factory=dict)
    """What the encoder's vectors depend on, where it is a configured one."""
    scale: Scaling | None = None
    """Of the encoder's vectors, as in training."""
    about: dict[str, Any] = field(default_factory=dict)
    """How it was trained; part of the answers' metadata."""
    version: str = ""
    """Hash of weights and JSON."""

    @property
    def size(self) -> int:
        """Features of a state."""
        return int(self.layers[0][0].shape[1])

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32 ``[n, members + 1]`` from features ``[n, size]``."""
        return through(self.layers, features)

    def good_enough(self, features: np.ndarray) -> np.ndarray:
        """The terminator's probabilities ``[n]`` from features ``[n, size]``."""
        probabilities: np.ndarray = 1 / (1 + np.exp(-through(self.terminator, features)[:, 0]))
        return probabilities

    def save(self, folder: Path) -> None:
        """Writes the export."""
        tensors = tensors_of(self.layers, "actor.") | tensors_of(self.terminator, "terminator.")
        if self.scale is not None:
            tensors |= {"center": self.scale.center, "spread": self.scale.spread}
        values = {
            "members": list(self.members),
            "layers": len(self.layers),
            "terminator": len(self.terminator),
            "t_max": self.t_max,
            "encoder": self.encoder,
            "prompts": self.prompts,
            "stops": self.stops,
            "reads": self.reads,
            "about": self.about,
        }
        KIND.write(folder, tensors, values)


def load_agent(folder: Path) -> Agent:
    """Raises ``ConfigError`` for a folder without a complete agent."""
    with KIND.read(folder) as artifact:
        values, tensors = artifact.description, artifact.tensors
        actor = artifact.layers(values["layers"], "actor.")
        if len(actor[-1][0]) != len(values["members"]) + 1:
            raise KeyError("the actor's actions are not the members and the end")
        scale = Scaling(tensors["center"], tensors["spread"]) if "center" in tensors else None
        return Agent(
            members=tuple(values["members"]),
            layers=actor,
            t_max=values["t_max"],
            encoder=values["encoder"],
            prompts=values["prompts"],
            stops=values["stops"],
            reads=values["reads"],
            terminator=artifact.layers(values["terminator"], "terminator."),
            scale=scale,
            about=values["about"],
            version=artifact.version,
        )
