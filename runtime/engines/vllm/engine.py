"""The production engine: vLLM, on GPUs or on its CPU build, behind the engine protocol.

Texts are scored by their prompt logprobs. vLLM leaves prompts with logprobs out of its prefix cache
unless it is told otherwise, and then gives no rows for what came from the cache: the engine counts
which rows are missing and asks for them again, cut so that no cache can hold them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Any

import numpy as np
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from runtime.call_context import current_call_context
from runtime.concurrency import gather_or_cancel
from runtime.config.engines import VllmEngine
from runtime.engines.base import CAPABILITIES, DEFERS, EngineSpec
from runtime.engines.sampling import Ending, check_sampling, check_top_k
from runtime.engines.validation import check_also, check_continuations, check_prompt, check_tail
from runtime.engines.vllm import process_guard
from runtime.engines.vllm.client import Client
from runtime.engines.vllm.embedder import build_embedder
from runtime.engines.vllm.launch import lora_request, start
from runtime.engines.vllm.logits_processor import noise_arguments
from runtime.engines.vllm.prefix_tracker import PrefixTracker
from runtime.engines.vllm.prompt_logprobs import Row, given, pieces, reduced, row, tops
from runtime.errors import BadRequest, EngineFault, Unsupported
from runtime.tokenization.files import eos_ids
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.outputs import ALL, Distribution, EngineFinish, Generation, Score, Tokens
from runtime.types.sampling import Sampling
from runtime.weights import resolve
from runtime.weights.embeddings import TokenVectors, locate

COLD_TOKENS = 64
"""A prompt with more tokens than this that no cache holds is computed once before it is shared."""

MAX_TEMPERATURE = 2.0
"""vLLM's own limit, where it draws itself."""


class VllmLM:
    """Runs any model that vLLM runs.

    Needs a running event loop for all but its construction, and the same one for all calls.
    Sampled text: with vLLM's first model runner (CPU) the same as the transformers engine's; with
    its second (GPU) vLLM's own noise, which is keyed by seed and position too.

    ``stat_loggers`` are vLLM's own factories of metrics, which call the model ``name``; see
    ``deployments/serving/ray_metrics.py``.

    Raises at construction: ``WeightsError``, ``ConfigError`` (both name the remedy).
    """

    def __init__(
        self, config: VllmEngine, name: str = "", stat_loggers: Sequence[Any] = ()
    ) -> None:
        folder = resolve(config.weights, config.sha256)
        tokenizer = Tokenizer.from_folder(folder)
        with ExitStack() as undo:
            process_guard.engage()  # first: vLLM's processes outlive a parent that is killed
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
            capabilities=CAPABILITIES if self._embedder else CAPABILITIES - {"embed", "states"},
        )
        self._folder = folder
        self._vectors: TokenVectors | None = None
        self._own_noise = not settings.use_v2_model_runner
        self._block = settings.cache_config.block_size
        self._caches = bool(settings.cache_config.enable_prefix_caching)
        self._warm = PrefixTracker(self._block)

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        """Continue ``prompt``; with ``score_tail`` also score its last tokens in the same pass."""
        check_sampling(sampling)
        if sampling.defer is not None:
            raise Unsupported(self._spec.model, DEFERS)
        sampling = replace(sampling, top_k=self._at_most(sampling.top_k))
        writes = sampling.max_tokens > 0
        check_prompt(self._spec, prompt, room=int(writes))
        check_tail(prompt, score_tail)
        nothing = Generation((), (), "length", top=() if sampling.top_k else None)
        if not writes:
            if not score_tail:
                return nothing
            rows, cached = await self._taught(list(prompt), len(prompt) - score_tail, 0)
            return Generation(
                (), (), "length", cached, nothing.top, tuple(row.logprob for row in rows)
            )
        return await self._write(list(prompt), sampling, score_tail)

    async def _write(self, prompt: list[int], sampling: Sampling, score_tail: int) -> Generation:
        room = self._spec.context_length - len(prompt)
        ending = Ending(sampling, self._spec.eos_ids, self._token_bytes, room)
        params = self._writing(sampling, min(sampling.max_tokens, room), score_tail)
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
                if score_tail and out.prompt_logprobs:  # told once, then empty
                    cached = out.num_cached_tokens or 0
                    tail = given(out, len(prompt), first, 0)
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
            raise EngineFault(f"vLLM broke off a text of {self._spec.model}")
        self._warm.add([*prompt, *tokens[:-1]])
        if len(tail) < score_tail:
            tail = await self._asked_again(prompt, first, len(prompt) - len(tail), 0, 1) + tail
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
        """Teacher-forced logprobs of each continuation given ``prompt``. A prompt that no cache
        seems to hold is computed first, then all continuations are in flight at once.

        vLLM's CPU runner tells no logprobs of ids by name, so a continuation with ``also`` gets
        whole rows, which are cut down here before they leave this process."""
        check_top_k(top_k)
        top_k = self._at_most(top_k)
        check_continuations(self._spec, prompt, continuations)
        check_also(self._spec, top_k, [len(c) for c in continuations], also)
        whole = {place for place, entry in enumerate(also) if any(len(ids) for ids in entry)}
        start = len(prompt)
        wanted = {place: list(c) for place, c in enumerate(continuations) if len(c)}
        if wanted:
            await self._heat(list(prompt))
        asked = (
            self._taught([*prompt, *tail], start, ALL if place in whole else top_k)
            for place, tail in wanted.items()
        )
        answers = dict(zip(wanted, await gather_or_cancel(*asked), strict=True))
        scores = [Score((), () if top_k else None)] * len(continuations)
        for place, (rows, cached) in answers.items():
            told = tops(rows, ALL if place in whole else top_k)
            if told is not None and place in whole:
                told = reduced(told, top_k, also[place])
            scores[place] = Score(tuple(row.logprob for row in rows), told, cached)
        return scores

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        """The next-token distribution after each prompt."""
        check_top_k(top_k, least=1)
        top_k = self._at_most(top_k)
        check_also(self._spec, top_k, [1] * len(prompts), [[ids] for ids in also])
        for prompt in prompts:
            check_prompt(self._spec, prompt, room=1)

        async def after(prompt: list[int], ids: Tokens) -> Distribution:
            asked_k = ALL if len(ids) else top_k
            out = await self._asked(prompt, logprobs=asked_k)
            told = tops([row(out.outputs[0].logprobs, 0, asked_k)], asked_k) or ()
            [best] = told if asked_k == top_k else reduced(told, top_k, [ids])
            return best

        extra = also or [()] * len(prompts)
        return await gather_or_cancel(
            *(after(list(p), ids) for p, ids in zip(prompts, extra, strict=True))
        )

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """State of each prompt's last token after the final norm, float32 [n, hidden_size]; from
        the model at the engine's side that ``embedding`` names, ``Unsupported`` without one."""
        if self._embedder is None:
            raise Unsupported(self._spec.model, "embed")
        for prompt in prompts:
            check_prompt(self._spec, prompt, room=0)
        if not prompts:
            return np.zeros((0, self._spec.hidden_size), dtype=np.float32)
        return await self._embedder.embed(prompts)

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        """As ``embed``, after each token of ``continuation`` too."""
        if self._embedder is None:
            raise Unsupported(self._spec.model, "states")
        check_prompt(self._spec, prompt, room=0)
        check_prompt(self._spec, [*prompt, *continuation], room=0)
        return await self._embedder.states(prompt, continuation)

    async def vectors(self, ids: Tokens) -> np.ndarray:
        """Rows of the table in the checkpoint; ``Unsupported`` where it is not in plain floating
        point. vLLM's processes, which hold the model, are not asked."""
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

    def _at_most(self, top_k: int) -> int:
        """vLLM refuses to tell more alternatives than there are."""
        return min(top_k, self._spec.vocab_size)

    # -- asking vLLM ---------------------------------------------------------------------------

    async def _taught(
        self, ids: list[int], start: int, top_k: int, attempt: int = 0
    ) -> tuple[list[Row], int]:
        """Rows of the tokens from ``start`` on, and how many tokens the cache held.

        The last token is not fed to the model: it is the only one allowed next, so the row of the
        next token is its own, and a text may fill the window to the last token.
        """
        fed = len(ids) - 1
        out = await self._asked(
            ids[:fed],
            logprobs=top_k,
            prompt_logprobs=top_k if fed > start else None,
            allowed_token_ids=[ids[fed]],
            skip_reading_prefix_cache=attempt > 1,
        )
        rows = given(out, fed, start, top_k)
        if len(rows) < fed - start:
            missing = await self._asked_again(ids, start, fed - len(rows), top_k, attempt + 1)
            rows = missing + rows
        return [*rows, row(out.outputs[0].logprobs, 0, top_k)], out.num_cached_tokens or 0

    async def _asked_again(
        self, ids: list[int], start: int, end: int, top_k: int, attempt: int
    ) -> list[Row]:
        """Rows of the tokens ``start`` to ``end`` that the cache swallowed: cut at the borders of
        its blocks, and should that not help either, without it."""
        if attempt > 2:
            raise EngineFault(f"vLLM does not give the logprobs of a text of {self._spec.model}")
        ranges = pieces(start, end, self._block)
        parts = await gather_or_cancel(
            *(self._taught(ids[:b], a, top_k, attempt) for a, b in ranges)
        )
        return [row for rows, _ in parts for row in rows]

    async def _heat(self, prompt: list[int]) -> None:
        """Has the cache hold the prompt before its continuations ask for it all at once."""
        if self._caches and self._warm.missing(prompt) > COLD_TOKENS + self._block:
            await self._asked(prompt)

    async def _asked(self, ids: list[int], **fields: Any) -> Any:
        """One request for a single next token, most urgent among its request's own."""
        fields.setdefault("skip_reading_prefix_cache", False)
        params = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            detokenize=False,
            flat_logprobs=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **fields,
        )
        last = None
        async with aclosing(
            self._client.generate(ids, params, current_call_context().priority - 1)
        ) as outputs:
            async for out in outputs:
                last = out
        if last is None or not last.outputs[0].token_ids:
            raise EngineFault(f"vLLM gave no answer for {self._spec.model}")
        self._warm.add(ids)
        return last

    def _writing(self, sampling: Sampling, max_tokens: int, score_tail: int) -> Any:
        """``SamplingParams`` of a text. Stop strings and words are ours to watch (vLLM's need its
        own tokenizer), which takes the tokens one by one."""
        watched = bool(sampling.stop) or sampling.words is not None or sampling.until_below > 0
        fields: dict[str, Any] = {"temperature": 0.0}
        if sampling.temperature > 0 and self._own_noise:
            fields = noise_arguments(sampling)
        elif sampling.temperature > 0:
            if sampling.temperature > MAX_TEMPERATURE:
                raise BadRequest(f"temperature must be at most {MAX_TEMPERATURE}", "temperature")
            fields = {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "seed": sampling.seed,
            }
        return SamplingParams(
            max_tokens=max_tokens,
            # An EOS that must not come is ruled out for the whole length, not only overlooked.
            min_tokens=max_tokens if sampling.ignore_eos else 0,
            ignore_eos=sampling.ignore_eos,
            stop_token_ids=list(self._spec.eos_ids),
            logprobs=sampling.top_k,
            prompt_logprobs=0 if score_tail else None,
            skip_reading_prefix_cache=False,
            detokenize=False,
            flat_logprobs=True,
            output_kind=RequestOutputKind.DELTA if watched else RequestOutputKind.FINAL_ONLY,
            **fields,
        )
