"""The engine protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from runtime.tokenization.tokenizer import TokenizerDefinition
from runtime.types.capabilities import TOKEN_LEVEL
from runtime.types.outputs import Distribution, Generation, Score, Tokens
from runtime.types.sampling import Sampling

DEFERS: Final = "defer"
"""Capability of ``Sampling.defer``."""
GUESSES: Final = "guess"
"""Capability of ``Sampling.guess``; an engine without it writes the same text, slower."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Properties of an engine for its callers; small enough to send to every coordinator."""

    model: str
    context_length: int
    """Upper bound of prompt and new tokens together."""
    vocab_size: int
    """Length of a dense row: the model's output size, which may exceed the tokenizer's."""
    hidden_size: int
    eos_ids: tuple[int, ...]
    tokenizer: TokenizerDefinition
    capabilities: frozenset[str] = TOKEN_LEVEL


class Engine(Protocol):
    """Token ids in, token ids out; stateless, so that every call may be retried on any replica.

    Raises ``ContextOverflow`` (its member is the model id) when the tokens do not fit,
    ``Unsupported`` for a missing capability, ``UnknownRouter`` for a deferral by a router that the
    engine does not hold, ``Overloaded`` when the queue is full, ``BadRequest`` for invalid
    arguments, ``EngineFault`` otherwise. Cancelling the awaiting task frees the engine's slot.
    """

    @property
    def spec(self) -> EngineSpec: ...

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        """Continues ``prompt``; also scores its last ``score_tail`` tokens in the same pass."""
        ...

    async def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int = 0,
        also: Sequence[Sequence[Tokens]] = (),
    ) -> list[Score]:
        """Teacher-forced logprobs of each continuation given ``prompt``.

        ``also[c][p]`` are further ids whose logprobs are returned at token ``p`` of continuation
        ``c``: they follow the ``top_k`` best in that position's ``Distribution``.
        """
        ...

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        """The next-token distribution after each prompt; ``also[i]`` as in ``score``."""
        ...

    async def vectors(self, ids: Tokens) -> np.ndarray:
        """Input embeddings of tokens, float32 [n, width]. Raises ``BadRequest`` for an id without
        an embedding."""
        ...

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """Last-layer hidden state of each prompt's last token, float32 [n, hidden_size]."""
        ...

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        """Last-layer hidden states of the prompt's last token and of each token of
        ``continuation``: float32 [len(continuation) + 1, hidden_size]."""
        ...

    async def check(self) -> None:
        """Raises ``EngineFault`` when the engine can no longer serve."""
        ...

    async def close(self) -> None:
        """Frees threads and memory; pending calls fail with ``EngineFault``."""
        ...
