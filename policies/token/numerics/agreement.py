"""The search of agreement-based ensembling (arXiv 2502.21265): which tokens agree. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

END: Final = b""
"""A member's end of the answer, among its tokens."""
END_HERE: Final = b"\xff\xffend"
"""The same among texts: bytes that cannot occur in a text."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One member's own spelling of the answer so far."""

    length: int
    """Bytes."""
    tokens: int
    logprob: float
    """Sum over its tokens."""
    ended: bool = False

    def mean(self, logprob: float = 0.0, tokens: int = 0) -> float:
        """Mean logprob per token, with ``tokens`` more of sum ``logprob``."""
        return (self.logprob + logprob) / max(self.tokens + tokens, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """The tokens that a member may write next, best first."""

    ids: np.ndarray
    tokens: list[bytes]
    logprobs: np.ndarray


def may_follow(token: bytes, rest: bytes, closed: bool) -> bool:
    """Whether a member that lacks ``rest`` of the common text may write ``token``: a prefix of
    ``rest``, or ``rest`` and more unless the text is ``closed``. It may end only where ``rest`` is
    empty."""
    if token == END:
        return not rest
    return rest.startswith(token) or (not closed and token.startswith(rest))


def active(hypotheses: Mapping[str, Hypothesis], length: int) -> list[str]:
    """Members that write next: those behind the common text of ``length`` bytes; if none is, all
    that have not ended."""
    behind = [n for n, h in hypotheses.items() if not h.ended and h.length < length]
    return behind or [n for n, h in hypotheses.items() if not h.ended]


def agree(
    offers: Mapping[str, Offer],
    rests: Mapping[str, bytes],
    hypotheses: Mapping[str, Hypothesis],
    weights: Mapping[str, float],
) -> dict[str, int] | None:
    """The best combination of one token of each offer whose texts agree, as indices in the offers;
    ``None`` when there is none. ``rests``: what each member lacks of the common text.

    The value of a combination is the weighted sum of the members' mean logprobs. Texts agree when
    each is a prefix of the longest; a member that ends must be at its end. So for each text that
    could be the longest, every member takes its best token that is a prefix of it, which gives the
    best of the whole cross product.
    """
    best = {name: _best_by_text(offer, rests[name]) for name, offer in offers.items()}
    result: tuple[float, dict[str, int]] | None = None
    for longest in sorted({text for texts in best.values() for text in texts}):
        choice: dict[str, int] = {}
        value = 0.0
        for name, texts in best.items():
            beginnings = [longest[:n] for n in range(len(longest) + 1) if longest[:n] in texts]
            if longest == b"" and END_HERE in texts:
                beginnings.append(END_HERE)
            if not beginnings:
                break
            place = min(texts[text] for text in beginnings)  # offers are sorted, best first
            choice[name] = place
            value += weights[name] * hypotheses[name].mean(float(offers[name].logprobs[place]), 1)
        else:
            if result is None or value > result[0]:
                result = (value, choice)
    return None if result is None else result[1]


def _best_by_text(offer: Offer, rest: bytes) -> dict[bytes, int]:
    """text beyond ``rest`` -> index of the first token that adds it"""
    texts: dict[bytes, int] = {}
    for place, token in enumerate(offer.tokens):
        texts.setdefault(END_HERE if token == END else token[len(rest) :], place)
    return texts
