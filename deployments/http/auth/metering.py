"""Charges what a request spends to its API key, checkpoint by checkpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from deployments.http.answerer import Ensemble
from deployments.http.auth.middleware import Caller
from runtime.types.events import Ended, Event, Recalled
from runtime.types.query import Query


def metered(ensemble: Ensemble, caller: Caller, answers: int) -> Ensemble:
    """The ensemble, charged to the caller's account if there is one."""
    return ensemble if caller.account is None else Metered(ensemble, caller, answers)


class Metered:
    """Charges while the answer is generated, so that a cancelled answer is charged up to its last
    span, and limits its budget to what the key has left."""

    def __init__(self, ensemble: Ensemble, caller: Caller, answers: int) -> None:
        self._ensemble = ensemble
        self._caller = caller
        self._answers = answers

    async def answer(self, query: Query) -> AsyncIterator[Event]:
        account, allowance = self._caller.account, self._caller.allowance
        assert account is not None
        rest = account.budget(allowance, self._answers)
        query = replace(query, caller=self._caller.name)
        if query.again:  # the known part has been charged already
            query = replace(query, left=rest)
        else:
            query = replace(query, budget=query.budget.narrow(rest))
        tokens, cost = 0, 0.0
        events = self._ensemble.answer(query)
        try:
            async for event in events:
                all_tokens, all_cost = spent(event)
                if isinstance(event, Recalled):  # charged when it was generated
                    tokens, cost = all_tokens, all_cost
                account.charge(allowance, max(all_tokens - tokens, 0), max(all_cost - cost, 0.0))
                tokens, cost = max(tokens, all_tokens), max(cost, all_cost)
                yield event
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def card(self) -> dict[str, Any]:
        return await self._ensemble.card()

    async def decode(self, ids: Sequence[int]) -> str:
        return await self._ensemble.decode(ids)


def spent(event: Event) -> tuple[int, float]:
    """Tokens and cost of all members since the start of the answer."""
    if isinstance(event, Ended):
        usage, cost = event.summary.get("usage", {}), event.summary.get("cost", {})
        return int(usage.get("total_tokens", 0)), float(cost.get("amount", 0.0))
    usages = event.checkpoint.usage.values()
    tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)
    return tokens, sum(usage.cost for usage in usages)
