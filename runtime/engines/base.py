"""The one seam: what every engine does for every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from runtime.tokenization.tokenizer import TokenizerDefinition
from runtime.types.outputs import Distribution, Generation, Score, Tokens
from runtime.types.sampling import Sampling

CAPABILITIES = frozenset({"generate", "score", "next_token", "embed", "states", "vectors"})
DEFERS: Final = "defer"
"""The capability of ``Sampling.defer``."""
GUESSES: Final = "guess"
"""The capability of ``Sampling.guess``; an engine without it writes the same text, slower."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a caller must know of an engine; small enough to send to every coordinator."""

    model: str
    context_length: int
    """Prompt and new tokens together."""
    vocab_size: int
    """Length of a dense row (the model's output size; may exceed the tokenizer's)."""
    hidden_size: int
    eos_ids: tuple[int, ...]
    tokenizer: TokenizerDefinition
    capabilities: frozenset[str] = CAPABILITIES


class Engine(Protocol):
    """Token ids in, token ids out; no state per request, so every call may be repeated anywhere.

    Errors: ``ContextOverflow`` (member = model id) when the tokens do not fit, ``Unsupported`` for
    a missing capability, ``UnknownRouter`` for a deferral by a router that it was never sent,
    ``Overloaded`` when the queue is full, ``EngineFault`` for the rest.
    Cancelling the awaiting task frees the engine's slot.
    """

    @property
    def spec(self) -> EngineSpec: ...

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        """Continue ``prompt``; with ``score_tail`` also score its last tokens in the same pass."""
        ...

    async def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int = 0,
        also: Sequence[Sequence[Tokens]] = (),
    ) -> list[Score]:
        """Teacher-forced logprobs of each continuation given ``prompt``, in one pass for all.

        ``also[c][p]`` are ids whose logprobs are wanted before token ``p`` of continuation ``c``
        whatever their rank: they follow the ``top_k`` best in that place's ``Distribution``.
        """
        ...

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        """The next-token distribution after each prompt; ``also[i]`` as in ``score``."""
        ...

    async def vectors(self, ids: Tokens) -> np.ndarray:
        """The model's input embeddings of tokens, float32 [n, width]; ``BadRequest`` for an id
        that it has no embedding of."""
        ...

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """Last-layer state of each prompt's last token, float32 [n, hidden_size]."""
        ...

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        """Last-layer states of the prompt's last token and of each token of ``continuation`` after
        it, in one pass: float32 [len(continuation) + 1, hidden_size]."""
        ...

    async def check(self) -> None:
        """Raises ``EngineFault`` when the engine can no longer serve."""
        ...

    async def close(self) -> None:
        """Frees threads and memory; pending calls fail with ``EngineFault``."""
        ...
