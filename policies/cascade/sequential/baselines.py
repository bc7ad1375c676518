"""Routes without an agent: the baselines of DER (arXiv 2412.07448)."""

from __future__ import annotations

import random
from typing import ClassVar, Literal

from pydantic import Field

from policies.cascade.sequential.base import Choice, Plan, RouteConfig, RoutePolicy, last_answer
from runtime.rng import derive_seed
from runtime.session.session import Session


class FixedRouteConfig(RouteConfig):
    type: Literal["fixed-route"] = "fixed-route"


class RandomRouteConfig(RouteConfig):
    type: Literal["random-route"] = "random-route"
    t_max: int = Field(5, ge=1)
    """Calls at most."""


class FixedRoute(RoutePolicy[FixedRouteConfig]):
    """All members, each once, in the configured order; each improves on the last answer.

    Cost: one whole answer by each member.
    """

    title: ClassVar[str] = "All members in turn"

    async def plan(self, session: Session) -> Plan:
        return InTurn(session)


class InTurn(Plan):
    def __init__(self, session: Session) -> None:
        self._session = session
        self.most = len(session.names)

    async def choose(self, able: list[str]) -> Choice | None:
        called = {call["member"] for call in self._session.state["route"]}
        left = [name for name in able if name not in called]
        return Choice(left[0], last=len(left) == 1) if left else None


class RandomRoute(RoutePolicy[RandomRouteConfig]):
    """After each answer a member or the end, drawn uniformly: an untrained agent.

    Cost: one whole answer for each call; on average about as many as there are members, at most
    ``t_max``.
    """

    title: ClassVar[str] = "A random route"

    async def plan(self, session: Session) -> Plan:
        return Drawn(session, self.config.t_max)


class Drawn(Plan):
    def __init__(self, session: Session, most: int) -> None:
        self._session, self.most = session, most

    async def choose(self, able: list[str]) -> Choice | None:
        session = self._session
        calls, ready = len(session.state["route"]), last_answer(session) is not None
        if calls >= self.most and ready:
            return None
        draw = random.Random(derive_seed(session.query.seed, "route", session.question, calls))
        drawn = draw.choice([*able, None] if ready else able)
        return None if drawn is None else Choice(drawn, last=calls + 1 >= self.most)
