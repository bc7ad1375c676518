"""Teacher-forced scoring with vLLM's prompt logprobs.

By default vLLM does not use its prefix cache for prompts with logprobs. With the cache enabled for
them it returns no rows for cached positions: the scorer counts the missing rows and requests them
again, in ranges that the cache cannot hold.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from runtime.call_context import current_call_context
from runtime.concurrency import gather_or_cancel
from runtime.engines.vllm.client import Client
from runtime.engines.vllm.prefix_tracker import PrefixTracker
from runtime.engines.vllm.prompt_logprobs import Row, prompt_rows, row, uncached_ranges
from runtime.engines.vllm.sampling_params import next_token_params
from runtime.errors import EngineFault

COLD_TOKENS = 64
"""A shared prompt with more uncached tokens than this is computed once before it is used."""
MAX_ATTEMPTS = 2


class Scorer:
    """Scores texts with one vLLM engine whose cache has blocks of ``block`` tokens."""

    def __init__(self, client: Client, model: str, block: int, caches_prefixes: bool) -> None:
        self._client, self._model = client, model
        self._block, self._caches_prefixes = block, caches_prefixes
        self.prefixes = PrefixTracker(block)

    async def rows(
        self, ids: list[int], start: int, top_k: int, attempt: int = 0
    ) -> tuple[list[Row], int]:
        """Rows of the tokens from ``start`` on, and the number of cached tokens.

        The last token is not fed to the model: it is the only allowed next token, so its row is
        that of the next token, and a text may fill the whole context length. Raises
        ``EngineFault``.
        """
        fed = len(ids) - 1
        out = await self.next(
            ids[:fed],
            logprobs=top_k,
            prompt_logprobs=top_k if fed > start else None,
            allowed_token_ids=[ids[fed]],
            skip_reading_prefix_cache=attempt > 1,
        )
        rows = prompt_rows(out, fed, start, top_k)
        if len(rows) < fed - start:
            missing = await self.recomputed(ids, start, fed - len(rows), top_k, attempt + 1)
            rows = missing + rows
        return [*rows, row(out.outputs[0].logprobs, 0, top_k)], out.num_cached_tokens or 0

    async def recomputed(
        self, ids: list[int], start: int, end: int, top_k: int, attempt: int
    ) -> list[Row]:
        """Rows of the tokens ``start`` to ``end`` that were missing because of the cache: the first
        attempt splits the range at block boundaries, the second one skips the cache."""
        if attempt > MAX_ATTEMPTS:
            raise EngineFault(f"vLLM returned no logprobs for a text of {self._model}")
        ranges = uncached_ranges(start, end, self._block)
        parts = await gather_or_cancel(
            *(self.rows(ids[:last], first, top_k, attempt) for first, last in ranges)
        )
        return [row for rows, _ in parts for row in rows]

    async def warm(self, prompt: list[int]) -> None:
        """Computes a probably uncached prompt, before its continuations are scored concurrently."""
        if self._caches_prefixes and self.prefixes.missing(prompt) > COLD_TOKENS + self._block:
            await self.next(prompt)

    async def next(self, ids: list[int], **fields: Any) -> Any:
        """vLLM's output of a single next token, ahead of the request's generations. Raises
        ``EngineFault``."""
        params = next_token_params(**fields)
        last: Any = None
        async with aclosing(
            self._client.generate(ids, params, current_call_context().priority - 1)
        ) as outputs:
            async for out in outputs:
                last = out
        if last is None or not last.outputs[0].token_ids:
            raise EngineFault(f"vLLM returned no token for {self._model}")
        self.prefixes.add(ids)
        return last
