"""Baselines of a route-learning ensemble: the oracle's routes, and fixed routes.

Members are called through the endpoint with the ensemble's prompts, each distinct call once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from openai import APIError, AsyncOpenAI

from deployments.config.app_config import AppConfig
from deployments.credentials import api_key
from deployments.evaluation.runner import SEED, Row
from deployments.progress import bar, console
from policies.cascade.sequential.base import RouteConfig
from policies.cascade.sequential.transfer_prompt import transfer
from runtime.config.evaluation import EvaluationConfig
from runtime.data.grading import given_answer, same_answer
from runtime.data.questions import Question
from runtime.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """One member's answer."""

    text: str | None
    """``None`` if the call failed; the previous answer is then kept."""
    cost: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class RouteResult:
    """The outcome of a route on one question."""

    correct: bool
    cost: float
    tokens: int
    route: tuple[str, ...]


class RouteRunner:
    """Runs routes of member calls and caches the members' answers."""

    def __init__(
        self,
        client: AsyncOpenAI,
        members: Sequence[str],
        ensemble: RouteConfig,
        config: EvaluationConfig,
    ) -> None:
        self.members = tuple(members)
        self._client, self._config = client, config
        self._ensemble, self._prompts = ensemble, ensemble.transfers()
        self.faults: list[APIError] = []
        self._gate = asyncio.Semaphore(config.concurrency)
        self._answers: dict[tuple[str, str, str | None], asyncio.Task[MemberAnswer]] = {}

    async def answer(self, member: str, question: str, previous: str | None) -> MemberAnswer:
        key = (member, question, previous)
        if key not in self._answers:
            self._answers[key] = asyncio.create_task(self._call(*key))
        return await self._answers[key]

    async def _call(self, member: str, question: str, previous: str | None) -> MemberAnswer:
        text = transfer(question, previous, self._prompts[member])
        async with self._gate:
            try:
                reply = await self._client.chat.completions.create(
                    model=member,
                    messages=[{"role": "user", "content": text}],
                    max_tokens=self._config.max_tokens,
                    temperature=self._ensemble.temperature,
                    top_p=self._ensemble.top_p,
                    seed=SEED,
                )
            except APIError as fault:
                self.faults.append(fault)
                return MemberAnswer(None)
        summary = (reply.model_extra or {})["ensemble"]
        content = (reply.choices[0].message.content or "").strip()
        return MemberAnswer(content, summary["cost"]["amount"], summary["usage"]["total_tokens"])

    def correct(self, text: str, question: Question) -> bool:
        return same_answer(given_answer(text, self._config.answer_pattern), question.answer)

    async def follow(self, route: Sequence[str], question: Question) -> RouteResult:
        """Runs a fixed route, which does not depend on the answers."""
        text: str | None = None
        cost, tokens = 0.0, 0
        for member in route:
            reply = await self.answer(member, question.question, text)
            text = text if reply.text is None else reply.text
            cost, tokens = cost + reply.cost, tokens + reply.tokens
        return RouteResult(self.correct(text or "", question), cost, tokens, tuple(route))

    async def oracle(self, question: Question, max_calls: int) -> RouteResult:
        """The cheapest route of up to ``max_calls`` calls whose last answer is correct, by
        best-first search over cost; if there is none, the cheapest single call."""
        numbers = itertools.count()
        frontier: list[tuple[float, int, RouteResult, str | None]] = [
            (0.0, next(numbers), RouteResult(False, 0.0, 0, ()), None)
        ]
        seen: dict[str | None, list[tuple[float, int]]] = {}
        cheapest: RouteResult | None = None
        while frontier:
            _, _, taken, text = heapq.heappop(frontier)
            if taken.route:
                cheapest = cheapest or taken
                if taken.correct:
                    return taken
            calls = len(taken.route)
            visited = seen.setdefault(text, [])
            if any(cost <= taken.cost and n <= calls for cost, n in visited) or calls == max_calls:
                continue
            visited.append((taken.cost, calls))
            replies = await asyncio.gather(
                *(self.answer(member, question.question, text) for member in self.members)
            )
            for member, one in zip(self.members, replies, strict=True):
                if one.text is None:
                    continue
                extended = RouteResult(
                    self.correct(one.text, question),
                    taken.cost + one.cost,
                    taken.tokens + one.tokens,
                    (*taken.route, member),
                )
                heapq.heappush(frontier, (extended.cost, next(numbers), extended, one.text))
        return cheapest or RouteResult(False, 0.0, 0, ())


async def route_rows(
    base_url: str,
    settings: AppConfig,
    questions: Sequence[Question],
    config: EvaluationConfig,
    rows: Sequence[Row],
) -> list[Row]:
    """The oracle, the best fixed route that costs no more than the ensemble, and the best fixed
    route at any cost, as rows. Raises ``ConfigError`` if ``evaluation.routes`` names no such
    ensemble."""
    baselines = config.routes
    if baselines is None:
        return []
    ensemble = settings.ensembles.get(baselines.ensemble)
    if not isinstance(ensemble, RouteConfig):
        raise ConfigError(f"evaluation.routes: {baselines.ensemble!r} is no ensemble with routes")
    ensemble_row = next((row for row in rows if row.name == baselines.ensemble), None)
    async with AsyncOpenAI(base_url=base_url, api_key=api_key(), timeout=600) as client:
        routes = RouteRunner(client, ensemble.members, ensemble, config)
        result = [await _oracle(routes, questions, baselines.t_max)]
        fixed: list[Row] = []
        orders = [
            order
            for length in range(1, baselines.fixed + 1)
            for order in itertools.permutations(routes.members, length)
        ]
        with bar("fixed routes", len(orders)) as step:
            for order in orders:
                fixed.append(await _fixed(routes, order, questions))
                step.done()
    if routes.faults:
        console.print(f"routes: {len(routes.faults)} calls failed; the first: {routes.faults[0]}")
    affordable = [
        row for row in fixed if ensemble_row is not None and row.cost <= ensemble_row.cost
    ]
    for name, pool in (("fixed, no dearer", affordable), ("fixed, any", fixed)):
        if pool:
            best = max(pool, key=lambda row: (row.accuracy, -row.cost))
            if not any(row.name.endswith(f": {best.name}") for row in result):
                result.append(replace(best, name=f"{name}: {best.name}"))
    return result


async def _oracle(routes: RouteRunner, questions: Sequence[Question], max_calls: int) -> Row:
    started = time.monotonic()
    with bar("oracle", len(questions)) as step:

        async def one(question: Question) -> RouteResult:
            taken = await routes.oracle(question, max_calls)
            step.done()
            return taken

        taken = await asyncio.gather(*map(one, questions))
    return _row("oracle", "oracle", taken, time.monotonic() - started)


async def _fixed(routes: RouteRunner, route: Sequence[str], questions: Sequence[Question]) -> Row:
    started = time.monotonic()
    taken = await asyncio.gather(*(routes.follow(route, question) for question in questions))
    return _row(" > ".join(route), "fixed", taken, time.monotonic() - started)


def _row(name: str, kind: str, taken: Sequence[RouteResult], seconds: float) -> Row:
    return Row(
        name=name,
        kind=kind,
        accuracy=sum(one.correct for one in taken) / len(taken),
        calls=sum(len(one.route) for one in taken),
        tokens=sum(one.tokens for one in taken),
        cost=sum(one.cost for one in taken),
        seconds=seconds,
    )
