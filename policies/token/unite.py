"""UniTe: "Determine-Then-Ensemble: Necessity of Top-k Union for Large Language Model Ensembling"
(arXiv 2410.03777)

For each token, the union of every member's ``k`` best tokens is formed by their bytes; each member
looks up its own logit for all of them (of the first sub-token, where it lacks the token) and takes
the softmax over the union; the weighted mean decides.

The members return ``top_k`` tokens, more than ``k``, so most lookups need no second call; the rest
is requested by id, so the result does not depend on ``top_k``.

Cost: one call to each member for each token, fewer when drafted (policies/token/fusion/loop.py); a
second one to members that lack logprobs.

Deviations: the published code counts a token that a member's own list and the union spell twice as
logit 0, merges tokens of different bytes that look alike, and never stops at an EOS. Here tokens
are the same when their bytes are, and the end is a token that members propose like any other.
Softmax over logits and over logprobs are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from policies.token.fusion.config import TokenConfig
from policies.token.fusion.lookup import Lookup, candidates
from policies.token.fusion.loop import TokenPolicy
from policies.token.fusion.rows import Fused, Fuser, Row, normalised
from runtime.session.session import Session
from runtime.vocab.union import Union


class UniTeConfig(TokenConfig):
    type: Literal["unite"] = "unite"
    k: int = Field(10, ge=1)
    """Tokens that each member proposes."""


class UniTeFuser(Fuser):
    """The mean of softmaxes over the union of the members' best."""

    def __init__(self, union: Union, weights: Mapping[str, float], lookup: Lookup, k: int) -> None:
        super().__init__(union, weights)
        self._lookup, self._k = lookup, k

    def missing(self, rows: Mapping[str, Row], scored: int | None = None) -> dict[str, list[int]]:
        return self._lookup.missing(rows, candidates(rows, self._k, scored))

    def fuse(self, rows: Mapping[str, Row], scored: int | None = None) -> Fused:
        keys = candidates(rows, self._k, scored)
        total = np.zeros(len(keys))
        for name, weight in self.weights(rows).items():
            logprobs = self._lookup.logprobs(name, rows[name], keys)
            shares = np.exp(logprobs - logprobs.max())
            total += weight * shares / shares.sum()
        with np.errstate(divide="ignore"):
            return normalised(np.asarray(keys, dtype=np.int64), np.log(total))


class UniTe(TokenPolicy[UniTeConfig]):
    """The union of top-k tokens."""

    paper: ClassVar[str] = "2410.03777"
    title: ClassVar[str] = "UniTe"

    async def fuser(self, session: Session, union: Union, weights: Mapping[str, float]) -> Fuser:
        return UniTeFuser(union, weights, lookup_of(session, union), self.config.k)


def lookup_of(session: Session, union: Union) -> Lookup:
    """The lookup of each live member's ids for union keys."""
    return Lookup(union, {n: member.connection.tokenizer for n, member in session.live.items()})
