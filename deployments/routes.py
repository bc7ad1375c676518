"""The routes that a route-learning ensemble is measured against: the oracle's, and fixed ones.

Members are asked through the endpoint, each call once, as the ensemble would ask them.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from openai import APIError, AsyncOpenAI

from deployments.config import AppConfig
from deployments.credentials import api_key
from deployments.evaluate import SEED, Row, wilson
from deployments.progress import bar, console
from policies.cascade.base import RouteConfig
from policies.cascade.transfer import transfer
from runtime.answers import given_answer, same_answer
from runtime.errors import ConfigError
from runtime.evaluation_config import EvaluationConfig
from runtime.questions import Question


@dataclass(frozen=True, slots=True)
class Said:
    """One member's answer."""

    text: str | None
    """``None`` where it failed; then the answer before it stays."""
    cost: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a route comes to on one question."""

    right: bool
    cost: float
    tokens: int
    route: tuple[str, ...]


class Routes:
    """Asks members, one after another, and remembers what they said."""

    def __init__(
        self,
        client: AsyncOpenAI,
        members: Sequence[str],
        asked: RouteConfig,
        wish: EvaluationConfig,
    ) -> None:
        self.members = tuple(members)
        self._client, self._wish = client, wish
        self._asked, self._prompts = asked, asked.transfers()
        self.faults: list[APIError] = []
        self._gate = asyncio.Semaphore(wish.concurrency)
        self._said: dict[tuple[str, str, str | None], asyncio.Task[Said]] = {}

    async def say(self, member: str, question: str, previous: str | None) -> Said:
        key = (member, question, previous)
        if key not in self._said:
            self._said[key] = asyncio.create_task(self._ask(*key))
        return await self._said[key]

    async def _ask(self, member: str, question: str, previous: str | None) -> Said:
        text = transfer(question, previous, self._prompts[member])
        async with self._gate:
            try:
                reply = await self._client.chat.completions.create(
                    model=member,
                    messages=[{"role": "user", "content": text}],
                    max_tokens=self._wish.max_tokens,
                    temperature=self._asked.temperature,
                    top_p=self._asked.top_p,
                    seed=SEED,
                )
            except APIError as fault:
                self.faults.append(fault)
                return Said(None)
        told = (reply.model_extra or {})["ensemble"]
        said = (reply.choices[0].message.content or "").strip()
        return Said(said, told["cost"]["amount"], told["usage"]["total_tokens"])

    def right(self, text: str, question: Question) -> bool:
        return same_answer(given_answer(text, self._wish.answer_pattern), question.answer)

    async def follow(self, route: Sequence[str], question: Question) -> Taken:
        """A route that is the same whatever is answered."""
        text: str | None = None
        cost, tokens = 0.0, 0
        for member in route:
            said = await self.say(member, question.question, text)
            text = text if said.text is None else said.text
            cost, tokens = cost + said.cost, tokens + said.tokens
        return Taken(self.right(text or "", question), cost, tokens, tuple(route))

    async def oracle(self, question: Question, most: int) -> Taken:
        """The cheapest route of up to ``most`` calls whose last answer is right, found by asking
        in the order of cost; where no route is, the cheapest single call."""
        numbers = itertools.count()
        ahead: list[tuple[float, int, Taken, str | None]] = [
            (0.0, next(numbers), Taken(False, 0.0, 0, ()), None)
        ]
        seen: dict[str | None, list[tuple[float, int]]] = {}
        cheapest: Taken | None = None
        while ahead:
            _, _, taken, text = heapq.heappop(ahead)
            if taken.route:
                cheapest = cheapest or taken
                if taken.right:
                    return taken
            calls = len(taken.route)
            known = seen.setdefault(text, [])
            if any(cost <= taken.cost and n <= calls for cost, n in known) or calls == most:
                continue
            known.append((taken.cost, calls))
            said = await asyncio.gather(
                *(self.say(member, question.question, text) for member in self.members)
            )
            for member, one in zip(self.members, said, strict=True):
                if one.text is None:
                    continue
                further = Taken(
                    self.right(one.text, question),
                    taken.cost + one.cost,
                    taken.tokens + one.tokens,
                    (*taken.route, member),
                )
                heapq.heappush(ahead, (further.cost, next(numbers), further, one.text))
        return cheapest or Taken(False, 0.0, 0, ())


async def route_rows(
    base_url: str,
    settings: AppConfig,
    questions: Sequence[Question],
    wish: EvaluationConfig,
    rows: Sequence[Row],
) -> list[Row]:
    """The oracle's row, the best fixed route that costs no more than the ensemble, and the best
    fixed route at any cost. Raises ``ConfigError``."""
    plan = wish.routes
    if plan is None:
        return []
    ensemble = settings.ensembles.get(plan.ensemble)
    if not isinstance(ensemble, RouteConfig):
        raise ConfigError(f"evaluation.routes: {plan.ensemble!r} is no ensemble that takes routes")
    own = next((row for row in rows if row.name == plan.ensemble), None)
    async with AsyncOpenAI(base_url=base_url, api_key=api_key(), timeout=600) as client:
        routes = Routes(client, ensemble.members, ensemble, wish)
        told = [await _oracle(routes, questions, plan.t_max)]
        fixed: list[Row] = []
        orders = [
            order
            for length in range(1, plan.fixed + 1)
            for order in itertools.permutations(routes.members, length)
        ]
        with bar("fixed routes", len(orders)) as step:
            for order in orders:
                fixed.append(await _fixed(routes, order, questions))
                step.done()
    if routes.faults:
        console.print(f"routes: {len(routes.faults)} calls failed; the first: {routes.faults[0]}")
    affordable = [row for row in fixed if own is not None and row.cost <= own.cost]
    for name, pool in (("fixed, no dearer", affordable), ("fixed, any", fixed)):
        if pool:
            best = max(pool, key=lambda row: (row.accuracy, -row.cost))
            if not any(row.name.endswith(f": {best.name}") for row in told):
                told.append(replace(best, name=f"{name}: {best.name}"))
    return told


async def _oracle(routes: Routes, questions: Sequence[Question], most: int) -> Row:
    started = time.monotonic()
    with bar("oracle", len(questions)) as step:

        async def one(question: Question) -> Taken:
            taken = await routes.oracle(question, most)
            step.done()
            return taken

        taken = await asyncio.gather(*map(one, questions))
    return _row("oracle", "oracle", taken, time.monotonic() - started)


async def _fixed(routes: Routes, route: Sequence[str], questions: Sequence[Question]) -> Row:
    started = time.monotonic()
    taken = await asyncio.gather(*(routes.follow(route, question) for question in questions))
    return _row(" > ".join(route), "fixed", taken, time.monotonic() - started)


def _row(name: str, kind: str, taken: Sequence[Taken], seconds: float) -> Row:
    right = sum(one.right for one in taken)
    return Row(
        name=name,
        kind=kind,
        accuracy=right / len(taken),
        accuracy_interval=wilson(right, len(taken)),
        calls=sum(len(one.route) for one in taken),
        tokens=sum(one.tokens for one in taken),
        cost=sum(one.cost for one in taken),
        seconds=seconds,
    )
