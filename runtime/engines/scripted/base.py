"""Base of scripted engines: one function, context to next-token logprobs. No torch."""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from runtime.engines.base import DEFERS, EngineSpec
from runtime.engines.sampling import Ending, check_sampling, check_top_k, distribution, pick
from runtime.engines.validation import check_also, check_continuations, check_prompt, check_tail
from runtime.errors import EngineFault, Unsupported
from runtime.tokenization.tokenizer import Tokenizer, TokenizerDefinition
from runtime.types.outputs import Distribution, EngineFinish, Generation, Score, Tokens
from runtime.types.sampling import Sampling
from runtime.weights.embeddings import checked

HIDDEN = 32
"""Hidden size of scripted engines."""


class ScriptedLM(ABC):
    """The engine protocol on one function: context to next-token logprobs."""

    def __init__(self, model: str, tokenizer: TokenizerDefinition, context_length: int) -> None:
        self._tokenizer = Tokenizer(tokenizer)
        self._spec = EngineSpec(
            model=model,
            context_length=context_length,
            vocab_size=self._tokenizer.vocab_size,
            hidden_size=HIDDEN,
            eos_ids=self._tokenizer.eos_ids,
            tokenizer=tokenizer,
        )
        self._closed = False

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    @abstractmethod
    def row(self, context: Tokens) -> np.ndarray:
        """Natural logprobs of the next token, float32 ``[vocab_size]``."""

    async def generate(self, prompt: Tokens, sampling: Sampling, score_tail: int = 0) -> Generation:
        check_sampling(sampling)
        if sampling.defer is not None:
            raise Unsupported(self._spec.model, DEFERS)
        check_prompt(self._spec, prompt, room=int(sampling.max_tokens > 0))
        check_tail(prompt, score_tail)
        cut = len(prompt) - score_tail
        tail, _ = self._teacher_forced(prompt[:cut], prompt[cut:], 0) if score_tail else ((), [])
        eos_ids, table = self._spec.eos_ids, self._tokenizer.token_bytes
        room = self._spec.context_length - len(prompt)
        ending = Ending(sampling, eos_ids, table, room)
        banned = eos_ids if sampling.ignore_eos else ()
        known = list(prompt)
        logprobs: list[float] = []
        top: list[Distribution] = []
        finish: EngineFinish | None = None if sampling.max_tokens else "length"
        while finish is None:
            # Allows cancellation here, as a forward pass does in a real engine.
            await asyncio.sleep(0)
            row = self.row(known)
            token = pick(row, sampling, len(known), banned, self._tokenizer.noise_keys)
            known.append(token)
            logprobs.append(float(row[token]))
            if sampling.top_k:
                top.append(distribution(row, sampling.top_k))
            finish = ending.push(token, logprobs[-1])
        return Generation(
            tokens=tuple(known[len(prompt) :]),
            logprobs=tuple(logprobs),
            finish=finish,
            top=tuple(top) if sampling.top_k else None,
            tail_logprobs=tail,
        )

    async def score(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        top_k: int = 0,
        also: Sequence[Sequence[Tokens]] = (),
    ) -> list[Score]:
        check_top_k(top_k)
        check_continuations(self._spec, prompt, continuations)
        check_also(self._spec, top_k, [len(c) for c in continuations], also)
        scores = []
        for place, continuation in enumerate(continuations):
            wanted = also[place] if also else ()
            logprobs, top = self._teacher_forced(prompt, continuation, top_k, wanted)
            scores.append(Score(logprobs, tuple(top) if top_k else None))
        return scores

    async def next_token(
        self, prompts: Sequence[Tokens], top_k: int, also: Sequence[Tokens] = ()
    ) -> list[Distribution]:
        check_top_k(top_k, least=1)
        check_also(self._spec, top_k, [1] * len(prompts), [[ids] for ids in also])
        for prompt in prompts:
            check_prompt(self._spec, prompt, room=1)
        wanted = also or [()] * len(prompts)
        return [
            distribution(self.row(prompt), top_k, ids)
            for prompt, ids in zip(prompts, wanted, strict=True)
        ]

    async def embed(self, prompts: Sequence[Tokens]) -> np.ndarray:
        """A hashed bag of tokens: the sum of 32 signs from each id's hash, scaled to unit
        length."""
        for prompt in prompts:
            check_prompt(self._spec, prompt, room=0)
        states = np.zeros((len(prompts), HIDDEN), dtype=np.float32)
        for state, prompt in zip(states, prompts, strict=True):
            for token in prompt:
                digest = hashlib.blake2b(str(token).encode(), digest_size=HIDDEN // 8).digest()
                state += np.unpackbits(np.frombuffer(digest, np.uint8)) * 2.0 - 1.0
            state /= max(float(np.linalg.norm(state)), 1e-12)
        return states

    async def states(self, prompt: Tokens, continuation: Tokens) -> np.ndarray:
        known = [*prompt, *continuation]
        return await self.embed([known[:end] for end in range(len(prompt), len(known) + 1)])

    async def vectors(self, ids: Tokens) -> np.ndarray:
        """32 signs from the hash of the token's bytes, so that tokens of two vocabularies with the
        same bytes have equal vectors; control tokens are hashed by id."""
        rows = np.empty((len(ids), HIDDEN), dtype=np.float32)
        for row, token in zip(rows, checked(ids, self._spec.vocab_size).tolist(), strict=True):
            data = self._tokenizer.token_bytes[token]
            person = b"bytes" if data else b"control"
            digest = hashlib.blake2b(
                data or str(token).encode(), digest_size=HIDDEN // 8, person=person
            ).digest()
            row[:] = np.unpackbits(np.frombuffer(digest, np.uint8)) * 2.0 - 1.0
        return rows

    async def check(self) -> None:
        if self._closed:
            raise EngineFault(f"the engine of {self._spec.model!r} is closed")

    async def close(self) -> None:
        self._closed = True

    def _teacher_forced(
        self,
        prompt: Tokens,
        continuation: Tokens,
        top_k: int,
        also: Sequence[Tokens] = (),
    ) -> tuple[tuple[float, ...], list[Distribution]]:
        known = list(prompt)
        logprobs: list[float] = []
        top: list[Distribution] = []
        for place, token in enumerate(continuation):
            row = self.row(known)
            logprobs.append(float(row[token]))
            if top_k:
                top.append(distribution(row, top_k, also[place] if also else ()))
            known.append(token)
        return tuple(logprobs), top


def weighted_row(weights: dict[int, float], vocab_size: int, floor: float) -> np.ndarray:
    """Logprobs, float32 [vocab]: ``weights`` share 1 - floor, all other tokens share ``floor``."""
    others = vocab_size - len(weights)
    row = np.full(vocab_size, floor / max(others, 1))
    named_mass = 1.0 - floor if others else 1.0
    total = sum(weights.values())
    for token, weight in weights.items():
        row[token] = named_mass * weight / total
    with np.errstate(divide="ignore"):
        return np.log(row).astype(np.float32)
