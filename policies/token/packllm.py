"""PackLLM: "Pack of LLMs: Model Fusion at Test-Time via Perplexity Optimization" (arXiv 2404.11531)

Before the first token each member's weight is set by how well it predicts the prompt:
- ``sim``: the softmax of minus the members' losses, over ``tau``;
- ``opt``: starting with the best member, the others are added one by one, best first, each with the
  share out of ``steps`` + 1 between 0 and 1 that minimises the mixture's loss on the prompt.
Then every token is fused with these weights: by default by the weighted mean of the members' logits
over the union of their best tokens, or by another token method (``fusion``).

Deviations: vocabularies are matched by bytes, with the first sub-token for tokens that a member
lacks, not by least edit distance (MinED). Losses of models with different tokenizers are per token
of the first member, so that they compare; the paper's are per own token. They cover the same text
for all: where a member has no BOS, and so no context for its first token, the text after that
token; a prompt of one such token gives all the same weight. The prompt is the text of the question,
without chat templates. Members of weight 0 are not called.

Cost: one call to each member before the first token (``opt``: for each 64 tokens of the prompt);
then as the fusion method.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from policies.base import Need
from policies.token.deepen import DeePEn, DeePEnConfig
from policies.token.eva import EVA, EVAConfig
from policies.token.fusion.config import TokenConfig
from policies.token.fusion.lookup import Lookup, candidates
from policies.token.fusion.loop import TokenPolicy
from policies.token.fusion.request import TokenRequest
from policies.token.fusion.rows import Fused, Fuser, Row, normalised
from policies.token.fusion.teacher_forcing import begin, teacher_force
from policies.token.gac import GaCFuser
from policies.token.unite import UniTeFuser, lookup_of
from runtime.session.connection import Connection
from runtime.session.session import Session
from runtime.types.spans import TokenChoice
from runtime.vocab.union import Union

FLOOR = -60.0
"""Logprob of tokens that a member cannot write or did not return; logits need a finite value."""


class PackLLMConfig(TokenConfig):
    type: Literal["packllm"] = "packllm"
    weighting: Literal["sim", "opt"] = "opt"
    tau: float = Field(1.0, gt=0)
    """The temperature of ``sim``."""
    steps: int = Field(20, ge=1)
    """``opt`` tries the shares 0, 1/steps, ..., 1."""
    fusion: Literal["logits", "gac", "unite", "deepen", "eva"] = "logits"
    """How tokens are fused with these weights; other methods use their own defaults."""
    k: int = Field(10, ge=1)
    """Tokens that each member proposes, for the fusions over a union of best tokens."""

    @property
    def vocabulary(self) -> str | None:
        return self.members[0] if self.fusion in ("deepen", "eva") else None


class LogitFuser(Fuser):
    """The softmax of the weighted mean of logits, over the union of the members' best."""

    def __init__(self, union: Union, weights: Mapping[str, float], lookup: Lookup, k: int) -> None:
        super().__init__(union, weights)
        self._lookup, self._k = lookup, k

    def missing(self, rows: Mapping[str, Row], scored: int | None = None) -> dict[str, list[int]]:
        return self._lookup.missing(rows, candidates(rows, self._k, scored))

    def logits(self, rows: Mapping[str, Row], scored: int | None) -> tuple[list[int], np.ndarray]:
        """The candidates and each member's logprobs of them: float64 [members, candidates]."""
        keys = candidates(rows, self._k, scored)
        logprobs = [self._lookup.logprobs(name, row, keys) for name, row in rows.items()]
        return keys, np.maximum(np.stack(logprobs), FLOOR)

    def fuse(self, rows: Mapping[str, Row], scored: int | None = None) -> Fused:
        keys, logits = self.logits(rows, scored)
        weights = self.weights(rows)
        shares = np.array([weights[name] for name in rows])
        return normalised(np.asarray(keys, dtype=np.int64), shares @ logits)


def losses(scored: Sequence[Sequence[TokenChoice]], count: int) -> list[float]:
    """Each member's negative logprob of a text (from ``Member.score_text``), divided by the text's
    ``count`` tokens. Where some members could not score their first token, it covers the end of the
    text that all of them scored, which has one token less."""
    short = [tokens for tokens in scored if tokens[0].data]
    judged = min((sum(len(t.data) for t in tokens[1:]) for tokens in short), default=math.inf)
    return [_nats(tokens[1:], judged) / max(count - bool(short), 1) for tokens in scored]


def _nats(tokens: Sequence[TokenChoice], judged: float) -> float:
    """Negative logprob of the last ``judged`` bytes; a partial token counts by its share."""
    total = 0.0
    for token in reversed(tokens):
        if judged <= 0:
            break
        size = len(token.data)
        total -= min(judged / max(size, 1), 1.0) * (token.logprob or 0.0)
        judged -= size
    return total


def similar(losses: Sequence[float], tau: float) -> np.ndarray:
    """The softmax of -loss / tau."""
    scores = -np.asarray(losses, dtype=np.float64) / tau
    shares = np.exp(scores - scores.max())
    weights: np.ndarray = shares / shares.sum()
    return weights


def optimal(logits: Sequence[np.ndarray], targets: Sequence[int], steps: int) -> np.ndarray:
    """Weights by greedy search. ``logits``: for each token of the prompt ``[members, candidates]``;
    ``targets``: the token's index among the candidates. Ties: the added member gets the least."""
    members = len(logits[0])
    alone = [_loss([rows[m] for rows in logits], targets) for m in range(members)]
    order = sorted(range(members), key=lambda m: alone[m])
    weights = np.zeros(members)
    weights[order[0]] = 1.0
    current = [rows[order[0]] for rows in logits]
    for member in order[1:]:
        newcomer = [rows[member] for rows in logits]
        tried = [step / steps for step in range(steps, -1, -1)]
        mixtures = [_mixed(current, newcomer, share) for share in tried]
        best = min(range(len(tried)), key=[_loss(mixed, targets) for mixed in mixtures].__getitem__)
        current = mixtures[best]
        weights *= tried[best]
        weights[member] = 1 - tried[best]
    return weights


def _mixed(old: Sequence[np.ndarray], new: Sequence[np.ndarray], share: float) -> list[np.ndarray]:
    return [share * a + (1 - share) * b for a, b in zip(old, new, strict=True)]


def _loss(logits: Sequence[np.ndarray], targets: Sequence[int]) -> float:
    """Mean negative logprob of the targets under the softmax of each row."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        top = row.max()
        total += top + float(np.log(np.exp(row - top).sum())) - float(row[target])
    return total / len(targets)


class PackLLM(TokenPolicy[PackLLMConfig]):
    """Weights by the perplexity of the prompt."""

    paper: ClassVar[str] = "2404.11531"
    title: ClassVar[str] = "PackLLM"
    needs: ClassVar[tuple[Need, ...]] = (
        *TokenPolicy.needs,
        Need("score"),
        Need("vectors", when={"fusion": ("deepen", "eva")}),
    )

    def __init__(self, config: PackLLMConfig) -> None:
        super().__init__(config)
        self._inner: DeePEn | EVA | None = None
        if config.fusion == "deepen":
            self._inner = DeePEn(DeePEnConfig(members=config.members))
        elif config.fusion == "eva":
            self._inner = EVA(EVAConfig(members=config.members))

    async def warm(self, connections: Mapping[str, Connection]) -> None:
        await super().warm(connections)
        if self._inner is not None:
            await self._inner.warm(connections)

    async def fuser(self, session: Session, union: Union, weights: Mapping[str, float]) -> Fuser:
        lookup = lookup_of(session, union)
        known: Any = session.state.get("weights")
        if known is None:
            shares = await self._weigh(session, union, lookup, weights)
            known = {name: shares[name] * weights[name] for name in session.live if name in shares}
            session.state["weights"] = known
        final = {name: float(known.get(name, 0.0)) for name in session.live}
        if self.config.fusion == "gac":
            return GaCFuser(union, final)
        if self._inner is not None:
            return await self._inner.fuser(session, union, final)
        if self.config.fusion == "unite":
            return UniTeFuser(union, final, lookup, self.config.k)
        return LogitFuser(union, final, lookup, self.config.k)

    async def _weigh(
        self, session: Session, union: Union, lookup: Lookup, weights: Mapping[str, float]
    ) -> dict[str, float]:
        """member -> weight by the prompt's loss; members of configured weight 0 are left out."""
        text = _question(session)
        tokenizer = next(iter(session.live.values())).connection.tokenizer
        pieces = [tokenizer.token_bytes[i] for i in tokenizer.encode(text)]
        some = {name: weights[name] for name in session.live if weights[name] > 0}
        equal = dict.fromkeys(some or session.live, 1.0)
        if self.config.weighting == "sim":
            read = await session.each(lambda member: member.score_text(text), equal)
            shares = similar(losses(list(read.values()), len(pieces)), self.config.tau)
            return dict(zip(read, shares.tolist(), strict=True))
        fuser = LogitFuser(
            union, {n: equal.get(n, 0.0) for n in session.live}, lookup, self.config.k
        )
        request = TokenRequest(session, self.config, union, fuser)
        request.contexts = begin(session)
        skipped = int(any(not context.ids for context in request.contexts.values()))
        logits, targets = [], []
        async for place in teacher_force(self.judge, request, pieces, skipped):
            if list(place.rows) == request.voices:
                keys, row = fuser.logits(place.rows, place.key)
                logits.append(row)
                targets.append(keys.index(place.key))
        voices = request.voices
        complete = [rows for rows in logits if len(rows) == len(voices)]
        if not complete or len(complete) < len(logits):  # no text, or a member was lost
            return dict.fromkeys(voices, 1.0)
        optimum = await asyncio.to_thread(optimal, logits, targets, self.config.steps)
        return dict(zip(voices, optimum.tolist(), strict=True))


def _question(session: Session) -> str:
    """The text of the prompt or messages."""
    query = session.query
    if query.prompt is not None:
        return query.prompt
    return "\n".join(message.content for message in query.messages)
