"""Token-level deferral for engines without it (vLLM): the engine writes short drafts, which are cut
off at the first token of low confidence.

The router reads hidden states from the engine's embedding model, in one pass for a whole draft;
entropy and margin are computed from the draft's distributions. The text is the same as with an
engine that defers by itself. Tokens drafted beyond the cut are wasted, so drafts are short.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np

from runtime.engines.base import Engine
from runtime.engines.deferral import confidence
from runtime.engines.sampling import distribution
from runtime.types.outputs import ALL, Distribution, Generation
from runtime.types.sampling import Deferral, Sampling, TokenRouter

T = TypeVar("T")

DRAFT: Final = 8
"""Tokens of a draft."""
TOP_K: Final = 64
"""Alternatives requested to compute a confidence from them."""
DENSE_VOCABULARY: Final = 4096
"""Up to this vocabulary size dense rows are requested."""

EMPTY: Final = Distribution(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))

EngineCall = Callable[[Callable[[Engine], Awaitable[T]]], Awaitable[T]]


class ExternalDeferral:
    """One generation under a ``Deferral``; ``call`` makes an engine call, with budget and
    retries."""

    def __init__(
        self,
        call: EngineCall,
        sampling: Sampling,
        router: TokenRouter | None,
        vocab_size: int,
        draft: int = DRAFT,
    ) -> None:
        assert sampling.defer is not None
        self._call, self._sampling, self._router = call, sampling, router
        self._defer: Deferral = sampling.defer
        self._vocab_size, self._length = vocab_size, draft
        from_rows = self._defer.by in ("entropy", "margin")
        self.read = self.cut = 0
        """Tokens read to compute confidences, and drafted tokens that were cut off."""
        self._top_k = (ALL if vocab_size <= DENSE_VOCABULARY else TOP_K) if from_rows else 0

    async def write(self, prompt: Sequence[int]) -> Generation:
        """As ``Engine.generate`` with ``sampling.defer``. Raises what ``call`` raises."""
        accepted, confidences = await self._accept_offered(prompt)
        room = self._sampling.max_tokens - len(accepted)
        if room == 0:
            return Generation(
                tuple(accepted), (0.0,) * len(accepted), "length", confidences=tuple(confidences)
            )
        return await self._draft(prompt, accepted, confidences, room)

    async def _accept_offered(self, prompt: Sequence[int]) -> tuple[list[int], list[float]]:
        """The offered tokens before the first one that the model should write itself, with their
        confidences."""
        offered = list(self._defer.offered[: self._sampling.max_tokens])
        if not offered:
            return [], []
        rows: Sequence[Distribution] = ()
        if self._top_k:
            [score] = await self._call(lambda engine: engine.score(prompt, [offered], self._top_k))
            rows = score.top or ()
            self.read += len(offered)
        confidences = await self._confidences(prompt, offered, rows, len(offered))
        below = [value < self._defer.threshold for value in confidences]
        count = below.index(False) if False in below else len(below)
        return offered[:count], confidences[:count]

    async def _draft(
        self, prompt: Sequence[int], accepted: list[int], earlier: list[float], room: int
    ) -> Generation:
        start = [*prompt, *accepted]
        draft_sampling = replace(
            self._sampling,
            defer=None,
            max_tokens=min(room, self._length),
            top_k=self._top_k if self._top_k == ALL else max(self._top_k, self._sampling.top_k),
        )
        reply = await self._call(lambda engine: engine.generate(start, draft_sampling))
        own = list(reply.tokens)
        confidences = await self._confidences(start, own, reply.top or (), len(own))
        below = [value < self._defer.threshold for value in confidences]
        count = below.index(True) if True in below else len(own)
        before = len(accepted)
        self.cut += len(own) - count
        return replace(
            reply,
            tokens=(*accepted, *own[:count]),
            # Offered tokens were not sampled here: their logprob is 0.
            logprobs=(*(0.0,) * before, *reply.logprobs[:count]),
            finish="deferred" if count < len(own) else reply.finish,
            top=self._requested_top(reply.top, before, count),
            confidences=(*earlier, *confidences[: count + 1]),
        )

    def _requested_top(
        self, rows: Sequence[Distribution] | None, before: int, count: int
    ) -> tuple[Distribution, ...] | None:
        """The first ``sampling.top_k`` of the returned alternatives."""
        k = self._sampling.top_k
        if k == 0 or rows is None:
            return None
        return (*(EMPTY,) * before, *(_best(row, k) for row in rows[:count]))

    async def _confidences(
        self,
        context: Sequence[int],
        tokens: Sequence[int],
        rows: Sequence[Distribution],
        count: int,
    ) -> list[float]:
        """The confidences before each of the first ``count`` tokens."""
        by, seed = self._defer.by, self._sampling.seed
        if by == "router":
            assert self._router is not None
            states: np.ndarray = await self._call(
                lambda engine: engine.states(context, tokens[: count - 1])
            )
            self.read += len(context) + count - 1
            return [float(value) for value in self._router.confidence(states)]
        return [
            confidence(
                by,
                rows[place] if rows else EMPTY,
                self._vocab_size,
                seed,
                len(context) + place,
            )
            for place in range(count)
        ]


def _best(row: Distribution, k: int) -> Distribution:
    if row.ids is None:
        return row if k == ALL else distribution(row.logprobs, k)
    return Distribution(row.ids[:k], row.logprobs[:k])
