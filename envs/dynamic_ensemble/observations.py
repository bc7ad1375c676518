"""The agent's observations: features of states from a text encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from envs.dynamic_ensemble.mdp import State
from policies.cascade.sequential.features import features, scaling, state_text
from runtime.data.questions import Question


class Encoded:
    """Features of states, scaled by the questions with and without reference answers. Texts are
    encoded once and cached."""

    def __init__(
        self,
        encode: Callable[[Sequence[str]], np.ndarray],
        t_max: int,
        tasks: Sequence[Question],
    ) -> None:
        self._encode, self._t_max = encode, t_max
        unanswered = [state_text(task.question, None) for task in tasks]
        answered = [state_text(task.question, _solved(task)) for task in tasks]
        vectors = encode([*unanswered, *answered])
        self._known = dict(zip(unanswered, vectors, strict=False))
        self.scale = scaling(vectors)
        self.size = vectors.shape[1] + 1

    def encode(self, states: Sequence[State]) -> np.ndarray:
        """float32 ``[n, size]`` in [-1, 1]."""
        texts = [state_text(state.question, state.answer) for state in states]
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known |= dict(zip(new, self._encode(new), strict=True))
        vectors = np.stack([self._known[text] for text in texts])
        return features(vectors, [state.calls for state in states], self._t_max, self.scale)


def _solved(task: Question) -> str:
    return "\n".join((*task.steps, task.answer))
