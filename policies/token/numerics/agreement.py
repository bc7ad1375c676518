"""The search of agreement-based ensembling: which tokens may stand together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

END: Final = b""
"""A member's end of the answer, among its tokens."""
END_HERE: Final = b"\xff\xffend"
"""The same among texts: bytes that no text holds."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One member's own spelling of the answer so far."""

    length: int
    """Bytes."""
    tokens: int
    logprob: float
    """Of all its tokens together."""
    ended: bool = False

    def mean(self, logprob: float = 0.0, tokens: int = 0) -> float:
        """Logprob per token, with further ones."""
        return (self.logprob + logprob) / max(self.tokens + tokens, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """The tokens that a member may write next, best first."""

    ids: np.ndarray
    tokens: list[bytes]
    logprobs: np.ndarray


def may_follow(token: bytes, rest: bytes, closed: bool) -> bool:
    """Whether a member that lacks ``rest`` of the common text may write ``token``: it spells a part
    of it or all of it and more; nothing more once the text is ``closed``. It may end only where
    nothing is left."""
    if token == END:
        return not rest
    return rest.startswith(token) or (not closed and token.startswith(rest))


def active(hypotheses: Mapping[str, Hypothesis], length: int) -> list[str]:
    """Members that write next: those behind the common text of ``length`` bytes; if none is, all
    that have not ended. The others wait."""
    behind = [n for n, h in hypotheses.items() if not h.ended and h.length < length]
    return behind or [n for n, h in hypotheses.items() if not h.ended]


def agree(
    offers: Mapping[str, Offer],
    rests: Mapping[str, bytes],
    hypotheses: Mapping[str, Hypothesis],
    weights: Mapping[str, float],
) -> dict[str, int] | None:
    """The best combination of one token of each offer whose texts agree, as places in the offers;
    ``None`` when there is none. ``rests``: what each member lacks of the common text.

    A combination's value is the weighted sum of the members' mean logprobs. Texts agree when each
    is a beginning of the longest; who ends must be at the end of it. So for each text that could be
    the longest, every member takes its best token that is a beginning of it: that finds the best of
    the whole cross product.
    """
    best = {name: _best_by_text(offer, rests[name]) for name, offer in offers.items()}
    found: tuple[float, dict[str, int]] | None = None
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
            if found is None or value > found[0]:
                found = (value, choice)
    return None if found is None else found[1]


def _best_by_text(offer: Offer, rest: bytes) -> dict[bytes, int]:
    """What each token adds beyond ``rest``, with the place of the first one that does."""
    texts: dict[bytes, int] = {}
    for place, token in enumerate(offer.tokens):
        texts.setdefault(END_HERE if token == END else token[len(rest) :], place)
    return texts
