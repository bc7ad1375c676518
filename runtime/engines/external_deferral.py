"""Handing over, for an engine that cannot tell by itself when to (vLLM's): it drafts, and what it
was unsure of is cut off again.

The router reads states from the model at the engine's side (``embedding``), in one pass for a whole
draft; entropy and margin follow from the distributions told with it. The text is the same as by an
engine that hands over itself; what is drafted beyond the border is wasted, so drafts are short.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np

from runtime.artifacts.token_router import Router
from runtime.engines.base import Engine
from runtime.engines.deferral import confidence
from runtime.engines.sampling import distribution
from runtime.types.outputs import ALL, Distribution, Generation
from runtime.types.sampling import Deferral, Sampling

T = TypeVar("T")

DRAFT: Final = 8
"""Tokens that are written before somebody looks."""
BEST: Final = 64
"""Alternatives told where a confidence follows from them."""
SMALL_VOCABULARY: Final = 4096
"""Told whole."""

NOTHING: Final = Distribution(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))

Ask = Callable[[Callable[[Engine], Awaitable[T]]], Awaitable[T]]


class ExternalDeferral:
    """One text under a ``Deferral``; ``ask`` makes one engine call, within budget and retries."""

    def __init__(
        self,
        ask: Ask,
        sampling: Sampling,
        router: Router | None,
        vocab_size: int,
        draft: int = DRAFT,
    ) -> None:
        assert sampling.defer is not None
        self._ask, self._sampling, self._router = ask, sampling, router
        self._defer: Deferral = sampling.defer
        self._vocab_size, self._length = vocab_size, draft
        told = self._defer.by in ("entropy", "margin")
        self.read = self.cut = 0
        """Tokens that were read to judge, and tokens that were written and cut off again."""
        self._top_k = (ALL if vocab_size <= SMALL_VOCABULARY else BEST) if told else 0

    async def write(self, prompt: Sequence[int]) -> Generation:
        """As ``Engine.generate`` does with ``sampling.defer``."""
        taken, seen = await self._take_offered(prompt)
        room = self._sampling.max_tokens - len(taken)
        if room == 0:
            return Generation(tuple(taken), (0.0,) * len(taken), "length", confidences=tuple(seen))
        return await self._draft(prompt, taken, seen, room)

    async def _take_offered(self, prompt: Sequence[int]) -> tuple[list[int], list[float]]:
        """The offered tokens up to the first that the model may write itself."""
        offered = list(self._defer.offered[: self._sampling.max_tokens])
        if not offered:
            return [], []
        rows: Sequence[Distribution] = ()
        if self._top_k:
            [score] = await self._ask(lambda engine: engine.score(prompt, [offered], self._top_k))
            rows = score.top or ()
            self.read += len(offered)
        sure = await self._confidences(prompt, offered, rows, len(offered))
        low = [value < self._defer.threshold for value in sure]
        count = low.index(False) if False in low else len(low)
        return offered[:count], sure[:count]

    async def _draft(
        self, prompt: Sequence[int], taken: list[int], seen: list[float], room: int
    ) -> Generation:
        start = [*prompt, *taken]
        wish = replace(
            self._sampling,
            defer=None,
            max_tokens=min(room, self._length),
            top_k=self._top_k if self._top_k == ALL else max(self._top_k, self._sampling.top_k),
        )
        reply = await self._ask(lambda engine: engine.generate(start, wish))
        own = list(reply.tokens)
        sure = await self._confidences(start, own, reply.top or (), len(own))
        low = [value < self._defer.threshold for value in sure]
        count = low.index(True) if True in low else len(own)
        before = len(taken)
        self.cut += len(own) - count
        return replace(
            reply,
            tokens=(*taken, *own[:count]),
            # What somebody else has written has no probability here.
            logprobs=(*(0.0,) * before, *reply.logprobs[:count]),
            finish="deferred" if count < len(own) else reply.finish,
            top=self._asked_for(reply.top, before, count),
            confidences=(*seen, *sure[: count + 1]),
        )

    def _asked_for(
        self, rows: Sequence[Distribution] | None, before: int, count: int
    ) -> tuple[Distribution, ...] | None:
        """As many alternatives as the caller wants, of those that were told."""
        k = self._sampling.top_k
        if k == 0 or rows is None:
            return None
        return (*(NOTHING,) * before, *(_best(row, k) for row in rows[:count]))

    async def _confidences(
        self,
        context: Sequence[int],
        tokens: Sequence[int],
        rows: Sequence[Distribution],
        count: int,
    ) -> list[float]:
        """Before each of the first ``count`` tokens."""
        by, seed = self._defer.by, self._sampling.seed
        if by == "router":
            assert self._router is not None
            states: np.ndarray = await self._ask(
                lambda engine: engine.states(context, tokens[: count - 1])
            )
            self.read += len(context) + count - 1
            return [float(value) for value in self._router.confidence(states)]
        return [
            confidence(
                by,
                rows[place] if rows else NOTHING,
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
