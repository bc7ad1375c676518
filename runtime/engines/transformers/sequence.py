"""What the batching loop works on: calls, and the token sequences each is made of."""

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
"""Most new tokens that room is made for before they are written."""


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
        """The token to score there; ``None`` when it is still to be picked."""
        place = self.position + 1
        return self.sequence.known[place] if place < self.sequence.certain else None


class TokenSequence:
    """One token list on its way through the model.

    The first ``feed`` of the ``known`` tokens go through the model; logits are wanted from position
    ``rows_from`` on. At most ``reuse`` tokens may come from the cache, since what is wanted at a
    position needs that position computed.

    A sequence that writes may have a ``guess`` at what it will write. It stands after what is
    ``certain`` and goes through the model with it; a token of it is kept if it is what is picked
    there, else the picked one takes its place, and the pass says nothing of what comes after.
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
        """So many of the ``known`` tokens are not guessed."""
        self._right = 0
        """Guesses that proved right since one was wrong."""
        self.feed, self.rows_from = feed + len(guess), rows_from
        self.reuse = min(rows_from, feed - 1 if states_from is None else states_from)
        self.expected = feed + (min(sampling.max_tokens, HEADROOM) if sampling else 0)
        """Tokens a new buffer is made for."""
        self.top_k, self.top_from = top_k, top_from
        self.also = also
        """Ids wanted whatever their rank, for each row from ``top_from`` on."""
        self.sampling, self.ending = sampling, ending
        self.states_from = states_from
        """The first position whose state is wanted; ``None``: of none."""
        self.router = router
        """Tells where the text is handed over, if ``sampling`` asks one."""
        defer = None if sampling is None else sampling.defer
        self.deferral = None if defer is None else DeferralState(defer)
        self.call: Call[Any]
        self.kv: KeyValues | None = None
        self.done = 0
        """Tokens whose keys and values are in ``kv``."""
        self.cached = 0
        self.waits_for: tuple[TokenSequence, int] | None = None
        """A running sequence that will have computed that many tokens of this one's prefix."""
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
        """The rows wanted of the next ``length`` tokens."""
        start = max(self.done, self.rows_from)
        return [Row(self, position) for position in range(start, self.done + length)]

    def wanted(self, position: int) -> Tokens:
        """Ids whose logprobs are told at a position besides the best."""
        place = position - self.top_from
        return self.also[place] if 0 <= place < len(self.also) else ()

    def defer(self) -> None:
        """Ends before the token that is due."""
        self.finish = "deferred"

    def accept(self, row: Row, token: int, logprob: float, top: Distribution | None) -> None:
        """Takes what the model says about one position, in order of positions."""
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
        # What comes after a wrong guess may still come, a name later, say; but where none was
        # right before it, nothing else is likely to be.
        left = self.known[place + 1 :] if self.finish is None and self._right else []
        self._right = 0
        self.known[place:] = [token, *left]
        self.feed = place if self.finish is not None else len(self.known)
        self.done = min(self.done, place)

    def tops(self) -> tuple[Distribution, ...] | None:
        return tuple(self.top) if self.top_k else None


@dataclass(eq=False)
class Call(Generic[T]):
    """One verb of the protocol, awaited by one task."""

    sequences: list[TokenSequence]
    result: Callable[[], T]
    """Builds the answer once every sequence is complete."""
    future: Future[T] = field(default_factory=Future)
    queued: bool = True
    """No sequence of it has begun."""
    over: bool = False
    """Answered, failed or cancelled: what is left of it is dropped before the next pass."""

    def __post_init__(self) -> None:
        for sequence in self.sequences:
            sequence.call = self
        # As running it cannot be cancelled: only the loop settles it.
        self.future.set_running_or_notify_cancel()

    def wait(self) -> asyncio.Future[T]:
        return asyncio.wrap_future(self.future)
