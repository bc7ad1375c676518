"""The embedded engine: a transformers model with continuous batching and a prefix cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from runtime.config.engines import TransformersEngine
from runtime.engines.base import DEFERS, GUESSES, EngineSpec
from runtime.engines.sampling import Ending, check_sampling, check_top_k
from runtime.engines.transformers import loader
from runtime.engines.transformers.logits_cache import LogitsCache
from runtime.engines.transformers.model_runner import ModelRunner
from runtime.engines.transformers.router_confidence import Routers
from runtime.engines.transformers.scheduler import Limits, Occupancy, Scheduler
from runtime.engines.transformers.sequence import Call, TokenSequence
from runtime.engines.validation import (
    check_also,
    check_continuations,
    check_guess,
    check_prompt,
    check_tail,
)
from runtime.errors import WeightsError
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.capabilities import TOKEN_LEVEL
from runtime.types.outputs import Distribution, Generation, Score, Tokens
from runtime.types.sampling import Sampling
from runtime.weights import resolve
from runtime.weights.embeddings import checked

T = TypeVar("T")


class TransformersLM:
    """Runs any causal model that uses transformers' attention interface.

    Calls of all kinds share forward passes. A call costs only its new tokens while the cache holds
    its context (``cached_tokens``). Running sequences are bounded by ``max_sequences`` times the
    context length; the cache shrinks to keep both together within ``cache_mb`` where possible.

    ``threads`` sets torch's thread count, which is global: two engines in one process share the
    last value.

    Raises at construction: ``WeightsError``, ``ConfigError`` (both name the remedy).
    """

    def __init__(self, config: TransformersEngine) -> None:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        folder = resolve(config.weights, config.sha256)
        tokenizer = Tokenizer.from_folder(folder)
        loaded = loader.load(folder, config)
        if tokenizer.own_size > loaded.vocab_size:
            raise WeightsError(
                f"{config.weights}: the tokenizer in {folder} has {tokenizer.own_size} tokens and "
                f"the model {loaded.vocab_size}; they belong to different models, so fetch both "
                "again from one place"
            )
        eos_ids = dict.fromkeys((*tokenizer.eos_ids, *loaded.eos_ids))
        self._token_bytes = tokenizer.token_bytes
        self._vectors: torch.Tensor = loaded.model.get_input_embeddings().weight
        self._spec = EngineSpec(
            model=config.weights,
            context_length=loaded.window,
            vocab_size=loaded.vocab_size,
            hidden_size=loaded.hidden_size,
            eos_ids=tuple(i for i in eos_ids if 0 <= i < loaded.vocab_size),
            tokenizer=tokenizer.definition,
            capabilities=TOKEN_LEVEL | {DEFERS, GUESSES},
        )
        self._logits_cache = LogitsCache(config.rows_mb * 2**20)
        device, eos = loaded.shape.device, self._spec.eos_ids
        self._routers = Routers(config.weights, loaded.hidden_size, device)
        self._scheduler = Scheduler(
            config.weights,
            ModelRunner(loaded.model, device, tokenizer, eos, self._logits_cache).step,
            loaded.shape,
            Limits(
                config.max_batch_tokens,
                config.max_sequences,
                config.max_queue,
                config.cache_mb * 2**20,
            ),
        )

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    @property
    def occupancy(self) -> Occupancy:
        """Current queue, slots and cache, for health checks and tests."""
        return self._scheduler.occupancy

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        """As ``Engine.generate``."""
        check_sampling(sampling)
        writes, defer = sampling.max_tokens > 0, sampling.defer
        self._routers.check(defer)
        check_prompt(self._spec, prompt, room=int(writes))
        check_guess(self._spec, sampling.guess)
        check_tail(prompt, score_tail)
        n = len(prompt)
        if not writes and not score_tail:
            return Generation((), (), "length", top=() if sampling.top_k else None)
        room = self._spec.context_length - n
        sequence = TokenSequence(
            prompt,
            feed=n if writes else n - 1,
            rows_from=n - 1 - score_tail,
            top_k=sampling.top_k,
            top_from=n - 1,
            sampling=sampling if writes else None,
            ending=Ending(sampling, self._spec.eos_ids, self._token_bytes, room)
            if writes
            else None,
            # The last token needs no guess: no token follows it.
            guess=sampling.guess[: max(min(sampling.max_tokens, room) - 1, 0)]
            if defer is None
            else (),
            router=self._routers.layers(defer.router)
            if defer is not None and defer.by == "router"
            else None,
        )

        def result() -> Generation:
            return Generation(
                tokens=tuple(sequence.known[n:]),
                logprobs=tuple(sequence.logprobs[score_tail:]),
                finish=sequence.finish or "length",
                cached_tokens=sequence.cached,
                top=sequence.tops(),
                tail_logprobs=tuple(sequence.logprobs[:score_tail]),
                confidences=tuple(sequence.deferral.confidences) if sequence.deferral else (),
            )

        return await self._answer([sequence], result)

    async def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int = 0,
        also: Sequence[Sequence[Tokens]] = (),
    ) -> list[Score]:
        """As ``Engine.score``. An uncached prompt is computed once, with the first continuation;
        then all others share a pass."""
        check_top_k(top_k)
        check_continuations(self._spec, prompt, continuations)
        check_also(self._spec, top_k, [len(c) for c in continuations], also)
        if any(len(ids) for entry in also for ids in entry):
            self._scheduler.check()
            lookup = self._logits_cache.score
            cached = await asyncio.to_thread(lookup, prompt, continuations, top_k, also)
            if cached is not None:
                return cached
        start = len(prompt) - 1
        by_place = {
            place: TokenSequence(
                [*prompt, *continuation],
                feed=start + len(continuation),
                rows_from=start,
                top_k=top_k,
                top_from=start,
                also=also[place] if also else (),
            )
            for place, continuation in enumerate(continuations)
            if len(continuation)
        }

        def result() -> list[Score]:
            nothing = Score((), () if top_k else None)
            scores = [nothing] * len(continuations)
            for place, sequence in by_place.items():
                logprobs = tuple(sequence.logprobs)
                scores[place] = Score(logprobs, sequence.tops(), sequence.cached)
            return scores

        return await self._answer(list(by_place.values()), result)

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        """As ``Engine.next_token``."""
        check_top_k(top_k, least=1)
        check_also(self._spec, top_k, [1] * len(prompts), [[ids] for ids in also])
        for prompt in prompts:
            check_prompt(self._spec, prompt, room=1)
        if any(len(ids) for ids in also):
            self._scheduler.check()
            cached = await asyncio.to_thread(self._logits_cache.next_token, prompts, top_k, also)
            if cached is not None:
                return cached
        sequences = [
            TokenSequence(
                prompt,
                feed=len(prompt),
                rows_from=len(prompt) - 1,
                top_k=top_k,
                top_from=len(prompt) - 1,
                also=also[place : place + 1],
            )
            for place, prompt in enumerate(prompts)
        ]
        return await self._answer(sequences, lambda: [s.top[0] for s in sequences])

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """As ``Engine.embed``; states are taken after the final norm."""
        for prompt in prompts:
            check_prompt(self._spec, prompt, room=0)
        sequences = [
            TokenSequence(
                prompt, feed=len(prompt), rows_from=len(prompt), states_from=len(prompt) - 1
            )
            for prompt in prompts
        ]
        if not sequences:
            return np.zeros((0, self._spec.hidden_size), dtype=np.float32)
        return await self._answer(sequences, lambda: np.stack([s.states[0] for s in sequences]))

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        """As ``Engine.states``, after the final norm."""
        check_prompt(self._spec, [*prompt, *continuation], room=0)
        check_prompt(self._spec, prompt, room=0)
        known = [*prompt, *continuation]
        sequence = TokenSequence(
            known, feed=len(known), rows_from=len(known), states_from=len(prompt) - 1
        )
        return await self._answer([sequence], lambda: np.stack(sequence.states))

    async def vectors(self, ids: Tokens) -> np.ndarray:
        """Rows of the embedding table, without the scaling that some models (Gemma) apply."""
        self._scheduler.check()
        wanted = checked(ids, self._vectors.shape[0])
        return await asyncio.to_thread(_rows, self._vectors, wanted)

    async def check(self) -> None:
        """Raises ``EngineFault`` when the scheduler's thread has ended."""
        self._scheduler.check()

    async def close(self) -> None:
        """Ends the scheduler after its current pass; pending calls fail."""
        await asyncio.to_thread(self._scheduler.close)

    async def _answer(self, sequences: list[TokenSequence], result: Callable[[], T]) -> T:
        if not sequences:
            return result()
        call: Call[T] = Call(sequences, result)
        self._scheduler.submit(call)
        done = False
        try:
            answer = await call.wait()
            done = True
            return answer
        finally:
            if not done:
                self._scheduler.cancel(call)


def _rows(table: torch.Tensor, ids: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        selected = table[torch.as_tensor(ids, device=table.device)].float()
        rows: np.ndarray = selected.cpu().numpy()
    return rows
