"""Drafts and candidates: texts of members with their logprobs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.outputs import Distribution, EngineFinish, Generation


@dataclass(frozen=True, slots=True)
class Draft:
    """A member's proposed continuation."""

    author: str
    text: str
    logprobs: tuple[float, ...]
    """Of the author's tokens, EOS included when ``final``."""
    final: bool
    """The author ends the answer after this text."""
    finish: EngineFinish = "length"
    tokens: tuple[int, ...] = ()
    piece_ends: tuple[int, ...] = ()
    """Character offset in ``text`` at which each token's text ends."""
    before: tuple[float, ...] = ()
    """Logprobs of the text before the draft, if it was scored in the same call."""
    top: tuple[Distribution, ...] = ()
    """Alternatives to each token, if requested."""

    def cut(self, length: int) -> Draft:
        """The first ``length`` characters, with the tokens that end within them.

        A token that is cut in two is dropped, unless it is the only one: its logprob then stays,
        since a candidate must have a score.
        """
        if length >= len(self.text):
            return self
        visible = max(1, sum(end <= length for end in self.piece_ends))
        return replace(
            self,
            text=self.text[:length],
            logprobs=self.logprobs[:visible],
            tokens=self.tokens[:visible],
            top=self.top[:visible],
            piece_ends=tuple(min(end, length) for end in self.piece_ends[:visible]),
            final=False,
        )


def read(author: str, tokenizer: Tokenizer, reply: Generation) -> Draft:
    """The draft of an engine's reply, cut back to whole characters."""
    final = reply.finish == "eos"
    written = reply.tokens[:-1] if final else reply.tokens
    whole = len(written) if final else tokenizer.whole_characters(written)
    visible = written[:whole]
    ends, data = [], b""
    for token in visible:
        data += tokenizer.token_bytes[token]
        ends.append(len(data.decode("utf-8", errors="ignore")))
    text = tokenizer.decode(visible)
    count = whole + (1 if final else 0)
    return Draft(
        author=author,
        text=text,
        logprobs=reply.logprobs[:count],
        final=final,
        finish=reply.finish,
        tokens=reply.tokens[:count],
        before=reply.tail_logprobs,
        top=(reply.top or ())[:count],
        piece_ends=(*(min(end, len(text)) for end in ends), *([len(text)] if final else [])),
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """Text to be scored; ``final`` adds the scoring member's own EOS."""

    text: str
    final: bool = False


def perplexity(logprobs: Sequence[float]) -> float:
    """exp of the mean negative logprob (natural log)."""
    return math.exp(-sum(logprobs) / len(logprobs))


def mean_probability(logprobs: Sequence[float]) -> float:
    """The arithmetic mean of the tokens' probabilities."""
    return sum(math.exp(value) for value in logprobs) / len(logprobs)
