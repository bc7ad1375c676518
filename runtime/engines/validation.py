"""Argument checks of all engines, before any computation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.engines.base import EngineSpec
from runtime.errors import BadRequest, ContextOverflow
from runtime.types.outputs import Tokens


def check_prompt(spec: EngineSpec, prompt: Tokens, room: int) -> None:
    """Raises ``BadRequest`` for an empty prompt or ids outside the vocabulary, ``ContextOverflow``
    when the prompt and ``room`` more tokens exceed the context length.
    """
    if len(prompt) == 0:
        raise BadRequest("a prompt needs at least one token; begin with the BOS token", "prompt")
    if len(prompt) + room > spec.context_length:
        raise ContextOverflow(spec.model, len(prompt), spec.context_length)
    _check_ids(spec, prompt)


def check_tail(prompt: Tokens, score_tail: int) -> None:
    """Raises ``BadRequest`` unless the tail is shorter than the prompt, whose first token has no
    logprob."""
    if not 0 <= score_tail < max(len(prompt), 1):
        raise BadRequest(
            f"score_tail is {score_tail}, but only the last {len(prompt) - 1} of "
            f"{len(prompt)} prompt tokens can be scored"
        )


def check_guess(spec: EngineSpec, guess: Tokens) -> None:
    """Raises ``BadRequest`` for ids outside the vocabulary."""
    _check_ids(spec, guess)


def check_continuations(spec: EngineSpec, prompt: Tokens, continuations: Sequence[Tokens]) -> None:
    """Raises ``BadRequest`` or ``ContextOverflow``, as for one prompt."""
    check_prompt(spec, prompt, room=0)
    for continuation in continuations:
        if len(prompt) + len(continuation) > spec.context_length:
            tokens = len(prompt) + len(continuation)
            raise ContextOverflow(spec.model, tokens, spec.context_length)
        _check_ids(spec, continuation)


def check_also(
    spec: EngineSpec, top_k: int, lengths: Sequence[int], also: Sequence[Sequence[Tokens]]
) -> None:
    """Raises ``BadRequest`` unless ``also`` is empty, or has for each text no entries or ids for
    each of its ``lengths`` positions, and ``top_k`` is at least 1."""
    if not also:
        return
    if top_k < 1:
        raise BadRequest("`also` adds to the top_k best; ask for at least 1", "also")
    if len(also) != len(lengths):
        raise BadRequest(f"`also` has {len(also)} entries for {len(lengths)}", "also")
    for entry, length in zip(also, lengths, strict=True):
        if len(entry) not in (0, length):
            raise BadRequest(f"`also` has ids for {len(entry)} places of {length}", "also")
        for ids in entry:
            _check_ids(spec, ids)


def _check_ids(spec: EngineSpec, tokens: Tokens) -> None:
    ids = np.asarray(tokens, dtype=np.int64)
    if len(ids) and not (0 <= ids.min() and ids.max() < spec.vocab_size):
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise BadRequest(f"token id {wrong} is outside the vocabulary of {spec.vocab_size}")
