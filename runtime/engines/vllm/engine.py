"""The vLLM engine: GPUs or the CPU build, behind the engine protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Any

import numpy as np

from runtime.call_context import current_call_context
from runtime.concurrency import gather_or_cancel
from runtime.config.engines import VllmEngine
from runtime.engines.base import DEFERS, EngineSpec
from runtime.engines.sampling import Ending, check_sampling, check_top_k
from runtime.engines.validation import check_also, check_continuations, check_prompt, check_tail
from runtime.engines.vllm import process_guard
from runtime.engines.vllm.client import Client
from runtime.engines.vllm.embedder import build_embedder
from runtime.engines.vllm.launch import lora_request, start
from runtime.engines.vllm.prompt_logprobs import Row, prompt_rows, reduced, row, tops
from runtime.engines.vllm.sampling_params import generation_params
from runtime.engines.vllm.scorer import Scorer
from runtime.errors import EngineFault, Unsupported
from runtime.tokenization.files import eos_ids
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.capabilities import TOKEN_LEVEL
from runtime.types.outputs import ALL, Distribution, EngineFinish, Generation, Score, Tokens
from runtime.types.sampling import Sampling
from runtime.weights import resolve
from runtime.weights.embeddings import TokenVectors, locate


class VllmLM:
    """Runs any model that vLLM supports.

    All calls need the same running event loop; construction needs none. Sampled text equals the
    transformers engine's with vLLM's first model runner (CPU); its second one (GPU) uses vLLM's own
    noise, which is keyed by seed and position too.

    ``stat_loggers`` are vLLM's factories of stat loggers, whose metrics call the model ``name``;
    see ``deployments/serving/ray_metrics.py``.

    Raises at construction: ``WeightsError``, ``ConfigError`` (both name the remedy).
    """

    def __init__(
        self, config: VllmEngine, name: str = "", stat_loggers: Sequence[Any] = ()
    ) -> None:
        folder = resolve(config.weights, config.sha256)
        tokenizer = Tokenizer.from_folder(folder)
        with ExitStack() as undo:
            process_guard.engage()  # first: vLLM's processes outlive a killed parent
            undo.callback(process_guard.release)
            engine = start(config, folder, name, stat_loggers)
            undo.callback(engine.shutdown)
            settings = engine.vllm_config
            model = settings.model_config
            known_eos = (*tokenizer.eos_ids, *eos_ids(folder, model.hf_text_config))
            self._embedder = build_embedder(config, folder)
            undo.pop_all()
        self._client = Client(config.weights, engine, lora_request(config))
        vocab_size = model.get_vocab_size()
        self._token_bytes = tokenizer.token_bytes
        self._spec = EngineSpec(
            model=config.weights,
            context_length=model.max_model_len,
            vocab_size=vocab_size,
            hidden_size=model.get_hidden_size(),
            eos_ids=tuple(i for i in dict.fromkeys(known_eos) if 0 <= i < vocab_size),
            tokenizer=tokenizer.definition,
            capabilities=TOKEN_LEVEL if self._embedder else TOKEN_LEVEL - {"embed", "states"},
        )
        self._folder = folder
        self._vectors: TokenVectors | None = None
        self._keyed_noise = not settings.use_v2_model_runner
        cache = settings.cache_config
        self._scorer = Scorer(
            self._client, config.weights, cache.block_size, bool(cache.enable_prefix_caching)
        )

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        """As ``Engine.generate``."""
        check_sampling(sampling)
        if sampling.defer is not None:
            raise Unsupported(self._spec.model, DEFERS)
        sampling = replace(sampling, top_k=self._clamped(sampling.top_k))
        writes = sampling.max_tokens > 0
        check_prompt(self._spec, prompt, room=int(writes))
        check_tail(prompt, score_tail)
        nothing = Generation((), (), "length", top=() if sampling.top_k else None)
        if not writes:
            if not score_tail:
                return nothing
            rows, cached = await self._scorer.rows(list(prompt), len(prompt) - score_tail, 0)
            return Generation(
                (), (), "length", cached, nothing.top, tuple(row.logprob for row in rows)
            )
        return await self._write(list(prompt), sampling, score_tail)

    async def _write(self, prompt: list[int], sampling: Sampling, score_tail: int) -> Generation:
        room = self._spec.context_length - len(prompt)
        ending = Ending(sampling, self._spec.eos_ids, self._token_bytes, room)
        params = generation_params(
            sampling,
            min(sampling.max_tokens, room),
            self._spec.eos_ids,
            score_prompt=score_tail > 0,
            keyed_noise=self._keyed_noise,
        )
        tokens: list[int] = []
        rows: list[Row] = []
        tail: list[Row] = []
        cached = 0
        finish: EngineFinish | None = None
        first = len(prompt) - score_tail
        async with aclosing(
            self._client.generate(prompt, params, current_call_context().priority)
        ) as outputs:
            async for out in outputs:
                if score_tail and out.prompt_logprobs:  # sent once, then empty
                    cached = out.num_cached_tokens or 0
                    tail = prompt_rows(out, len(prompt), first, 0)
                cached = max(cached, out.num_cached_tokens or 0)
                written = out.outputs[0]
                for place, token in enumerate(written.token_ids):
                    if finish is None:
                        tokens.append(token)
                        rows.append(row(written.logprobs, place, sampling.top_k))
                        finish = ending.push(token, rows[-1].logprob)
                if finish is not None and not out.finished:
                    break  # closing the outputs frees the engine's slot
        if finish is None:
            raise EngineFault(f"vLLM ended a generation of {self._spec.model} without a result")
        self._scorer.prefixes.add([*prompt, *tokens[:-1]])
        if len(tail) < score_tail:
            missing = await self._scorer.recomputed(prompt, first, len(prompt) - len(tail), 0, 1)
            tail = missing + tail
        return Generation(
            tokens=tuple(tokens),
            logprobs=tuple(row.logprob for row in rows),
            finish=finish,
            cached_tokens=cached,
            top=tops(rows, sampling.top_k),
            tail_logprobs=tuple(row.logprob for row in tail),
        )

    async def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int = 0,
        also: Sequence[Sequence[Tokens]] = (),
    ) -> list[Score]:
        """As ``Engine.score``. A prompt that is probably uncached is computed first, then all
        continuations run concurrently.

        vLLM's CPU runner returns no logprobs of given ids, so a continuation with ``also`` gets
        dense rows, which are reduced before they leave this process."""
        check_top_k(top_k)
        top_k = self._clamped(top_k)
        check_continuations(self._spec, prompt, continuations)
        check_also(self._spec, top_k, [len(c) for c in continuations], also)
        dense = {place for place, entry in enumerate(also) if any(len(ids) for ids in entry)}
        start = len(prompt)
        tails = {place: list(c) for place, c in enumerate(continuations) if len(c)}
        if tails:
            await self._scorer.warm(list(prompt))
        calls = (
            self._scorer.rows([*prompt, *tail], start, ALL if place in dense else top_k)
            for place, tail in tails.items()
        )
        results = dict(zip(tails, await gather_or_cancel(*calls), strict=True))
        scores = [Score((), () if top_k else None)] * len(continuations)
        for place, (rows, cached) in results.items():
            top = tops(rows, ALL if place in dense else top_k)
            if top is not None and place in dense:
                top = reduced(top, top_k, also[place])
            scores[place] = Score(tuple(row.logprob for row in rows), top, cached)
        return scores

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        """As ``Engine.next_token``."""
        check_top_k(top_k, least=1)
        top_k = self._clamped(top_k)
        check_also(self._spec, top_k, [1] * len(prompts), [[ids] for ids in also])
        for prompt in prompts:
            check_prompt(self._spec, prompt, room=1)

        async def after(prompt: list[int], ids: Tokens) -> Distribution:
            requested = ALL if len(ids) else top_k
            out = await self._scorer.next(prompt, logprobs=requested)
            top = tops([row(out.outputs[0].logprobs, 0, requested)], requested) or ()
            [best] = top if requested == top_k else reduced(top, top_k, [ids])
            return best

        extra = also or [()] * len(prompts)
        return await gather_or_cancel(
            *(after(list(p), ids) for p, ids in zip(prompts, extra, strict=True))
        )

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """As ``Engine.embed``, from the separate model that ``embedding`` names, after the final
        norm. Raises ``Unsupported`` without one."""
        if self._embedder is None:
            raise Unsupported(self._spec.model, "embed")
        for prompt in prompts:
            check_prompt(self._spec, prompt, room=0)
        if not prompts:
            return np.zeros((0, self._spec.hidden_size), dtype=np.float32)
        return await self._embedder.embed(prompts)

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        """As ``Engine.states``, from the same model as ``embed``."""
        if self._embedder is None:
            raise Unsupported(self._spec.model, "states")
        check_prompt(self._spec, prompt, room=0)
        check_prompt(self._spec, [*prompt, *continuation], room=0)
        return await self._embedder.states(prompt, continuation)

    async def vectors(self, ids: Tokens) -> np.ndarray:
        """Rows of the embedding table, read from the checkpoint, not from vLLM. Raises
        ``Unsupported`` for a table that is not in plain floating point."""
        await self._client.check()
        if self._vectors is None:
            self._vectors = await asyncio.to_thread(locate, self._folder, self._spec.model)
        return await asyncio.to_thread(self._vectors.rows, ids)

    async def check(self) -> None:
        """Raises ``EngineFault`` when vLLM's processes are gone."""
        await self._client.check()
        if self._embedder is not None:
            await self._embedder.check()

    async def close(self) -> None:
        """Stops vLLM's processes; pending calls fail with ``EngineFault``."""
        if self._client.closed:
            return
        await self._client.close()
        if self._embedder is not None:
            await self._embedder.close()
        process_guard.release()

    def _clamped(self, top_k: int) -> int:
        """vLLM rejects a ``top_k`` above the vocabulary size."""
        return min(top_k, self._spec.vocab_size)
