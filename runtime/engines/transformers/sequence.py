"""Units of work of the scheduler: calls, and their token sequences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch

from runtime.engines.deferral import DeferralState
from runtime.engines.sampling import Ending
from runtime.engines.transformers.kv_cache import KeyValues
from runtime.types.outputs import Distribution, EngineFinish, Tokens
from runtime.types.sampling import Sampling

T = TypeVar("T")
Layers: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]
"""Weights ``[out, in]`` and biases ``[out]`` of a router, on the model's device."""

HEADROOM = 128
"""Upper bound of new tokens for which a buffer is allocated in advance."""


@dataclass(eq=False)
class Row:
    """One position whose logits a pass computes."""

    sequence: TokenSequence
    position: int

    @property
    def context(self) -> list[int]:
        """All tokens up to the position."""
        return self.sequence.known[: self.position + 1]

    @property
    def target(self) -> int | None:
        """The next token, to be scored; ``None`` when it is to be sampled."""
        place = self.position + 1
        return self.sequence.known[place] if place < self.sequence.certain else None


class TokenSequence:
    """One token sequence to run through the model.

    The first ``feed`` of the ``known`` tokens go through the model; logits are needed from position
    ``rows_from`` on. At most ``reuse`` tokens may come from the cache, since positions with results
    must be computed.

    A generating sequence may have a ``guess`` of its next tokens, placed after the ``certain``
    tokens and verified in the same pass (speculative decoding). A guessed token is accepted if it
    equals the sampled one, else the sampled one replaces it and later rows of the pass are ignored.
    """

    def __init__(
        self,
        known: Sequence[int],
        feed: int,
        rows_from: int,
        *,
        top_k: int = 0,
        top_from: int = 0,
        also: Sequence[Tokens] = (),
        sampling: Sampling | None = None,
        ending: Ending | None = None,
        guess: Sequence[int] = (),
        states_from: int | None = None,
        router: Layers | None = None,
    ) -> None:
        self.ids = np.asarray(known, dtype=np.int64)
        self.known = [*known, *guess]
        self.certain = len(known)
        """Number of ``known`` tokens that are not guessed."""
        self._right = 0
        """Accepted guesses since the last wrong one."""
        self.feed, self.rows_from = feed + len(guess), rows_from
        self.reuse = min(rows_from, feed - 1 if states_from is None else states_from)
        self.expected = feed + (min(sampling.max_tokens, HEADROOM) if sampling else 0)
        """Tokens for which a new buffer is allocated."""
        self.top_k, self.top_from = top_k, top_from
        self.also = also
        """Further ids to return, for each row from ``top_from`` on."""
        self.sampling, self.ending = sampling, ending
        self.states_from = states_from
        """The first position whose hidden state is needed; ``None`` for none."""
        self.router = router
        """The router of ``sampling.defer``, if it uses one."""
        defer = None if sampling is None else sampling.defer
        self.deferral = None if defer is None else DeferralState(defer)
        self.call: Call[Any]
        self.kv: KeyValues | None = None
        self.done = 0
        """Tokens whose keys and values are in ``kv``."""
        self.cached = 0
        self.waits_for: tuple[TokenSequence, int] | None = None
        """A running sequence, and the number of tokens of this one's prefix that it will
        compute."""
        self.last_pass = -1
        self.logprobs: list[float] = []
        self.top: list[Distribution] = []
        self.finish: EngineFinish | None = None
        self.states: list[np.ndarray] = []
        """In order of positions."""

    @property
    def pending(self) -> int:
        return self.feed - self.done

    @property
    def complete(self) -> bool:
        return self.pending == 0

    def rows(self, length: int) -> list[Row]:
        """The rows needed of the next ``length`` tokens."""
        start = max(self.done, self.rows_from)
        return [Row(self, position) for position in range(start, self.done + length)]

    def wanted(self, position: int) -> Tokens:
        """Further ids whose logprobs are returned at a position."""
        place = position - self.top_from
        return self.also[place] if 0 <= place < len(self.also) else ()

    def defer(self) -> None:
        """Ends the generation before the next token."""
        self.finish = "deferred"

    def accept(self, row: Row, token: int, logprob: float, top: Distribution | None) -> None:
        """Adds the result of one position; called in order of positions."""
        if row.position >= self.done:  # it was computed after a wrong guess
            return
        self.logprobs.append(logprob)
        if top is not None:
            self.top.append(top)
        if self.ending is not None and row.target is None:
            self.finish = self.ending.push(token, logprob)
            self._write(token)

    def _write(self, token: int) -> None:
        place = self.certain
        self.certain += 1
        if self.finish is None and self.known[place : place + 1] == [token]:
            self._right += 1
            return
        # Tokens after a wrong guess may still match later; they are kept only if a guess was
        # accepted before it.
        left = self.known[place + 1 :] if self.finish is None and self._right else []
        self._right = 0
        self.known[place:] = [token, *left]
        self.feed = place if self.finish is not None else len(self.known)
        self.done = min(self.done, place)

    def tops(self) -> tuple[Distribution, ...] | None:
        return tuple(self.top) if self.top_k else None


@dataclass(eq=False)
class Call(Generic[T]):
    """One engine call, awaited by one task."""

    sequences: list[TokenSequence]
    result: Callable[[], T]
    """Builds the result once every sequence is complete."""
    future: Future[T] = field(default_factory=Future)
    queued: bool = True
    """No sequence of it has started."""
    over: bool = False
    """Done, failed or cancelled: its sequences are dropped before the next pass."""

    def __post_init__(self) -> None:
        for sequence in self.sequences:
            sequence.call = self
        # A running future cannot be cancelled: only the scheduler resolves it.
        self.future.set_running_or_notify_cancel()

    def wait(self) -> asyncio.Future[T]:
        return asyncio.wrap_future(self.future)
