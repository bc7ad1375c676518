"""DER: "Dynamic Ensemble Reasoning for LLM Experts" (arXiv 2412.07448)

A trained agent reads the question and the last answer, and calls one more member or stops; a member
called later is given the last answer as advice. ``orchestrion train der`` trains
the agent with PPO against live members and exports it; serving loads it without
RLlib.

Deviations, and choices that the paper leaves open:

- Stopping is a trained action, or (``stop: terminator``) decided by another trained network that
  predicts whether the answer meets the threshold.
- The agent also sees how many calls are left.
- A member that has failed cannot be chosen again; its call counts.
- The next request loads a new export in the agent's folder, without restart; a request keeps the
  agent it began with, unless it moves to another coordinator.

The last call that ``t_max`` allows is streamed as it is written; an earlier answer is emitted line
by line once the agent has stopped.

Cost: one whole answer for each call of the route, and a text encoded before each decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from policies.base import Need
from policies.cascade.sequential.agent import ABOUT, Agent, load_agent
from policies.cascade.sequential.base import Choice, Plan, RouteConfig, RoutePolicy, last_answer
from policies.cascade.sequential.features import features, state_text
from runtime.artifacts.hot_reload import HotReloaded
from runtime.errors import ConfigError
from runtime.rng import derive_seed
from runtime.session.connection import Connection
from runtime.session.session import Session


class DERConfig(RouteConfig):
    type: Literal["der"] = "der"
    agent: str
    """Folder of the exported agent, relative to the working folder."""
    encoder: str
    """The encoder that the agent was trained with: a name under ``encoders``, or a member, whose
    state after the text is taken."""
    choose: Literal["greedy", "sampled"] = "greedy"
    """Sampled routes are drawn from the agent's probabilities with the request's seed."""
    stop: Literal["action", "terminator"] = "action"
    certain: float = Field(0.5, ge=0, le=1)
    """With ``stop: terminator``: the probability of a good enough answer at which it stops."""
    t_max: int | None = Field(None, ge=1)
    """Most calls. Default and maximum: the value the agent was trained with."""

    @property
    def encoder_name(self) -> str | None:
        return self.encoder


class DER(RoutePolicy[DERConfig]):
    """A trained agent decides which member to call next, and when to stop."""

    paper: ClassVar[str] = "2412.07448"
    title: ClassVar[str] = "DER"
    needs: ClassVar[tuple[Need, ...]] = (*RoutePolicy.needs, Need("embed", of="encoder_name"))

    def __init__(self, config: DERConfig) -> None:
        super().__init__(config)
        self._file = HotReloaded(Path(config.agent), ABOUT, load_agent, self._check)

    async def warm(self, connections: Mapping[str, Connection]) -> None:
        await self._file.current()

    async def plan(self, session: Session) -> Plan:
        agent = await self._file.current()
        session.state["agent"] = agent.version
        return AgentPlan(session, self.config, agent)

    def _check(self, agent: Agent) -> None:
        """Raises ``ConfigError`` for an agent that was trained for other conditions."""
        config = self.config
        strangers = [name for name in agent.members if name not in config.members]
        if strangers:
            wrong = f"calls {strangers[0]!r}, which is not among members {list(config.members)}"
        elif agent.encoder != config.encoder:
            wrong = f"was trained with encoder {agent.encoder!r}, not {config.encoder!r}"
        elif any(config.transfers()[name] != agent.prompts[name] for name in agent.members):
            wrong = "was trained with other knowledge transfer prompts than are configured"
        elif config.stop == "action" and not agent.stops:
            wrong = "was trained without a stop action (reward.ends: threshold; use its terminator)"
        elif config.stop == "terminator" and not agent.terminator:
            wrong = "has no terminator (configure `terminator: true` where it is trained)"
        else:
            return
        raise ConfigError(f"the agent in {config.agent} {wrong}; configure the same, or train anew")


class AgentPlan(Plan):
    """One request's decisions."""

    def __init__(self, session: Session, config: DERConfig, agent: Agent) -> None:
        self._session, self._config, self._agent = session, config, agent
        self.most = min(config.t_max or agent.t_max, agent.t_max)
        self.about = {"agent": agent.version}

    async def choose(self, able: list[str]) -> Choice | None:
        session, agent = self._session, self._agent
        calls, previous = len(session.state["route"]), last_answer(session)
        if calls >= self.most and previous is not None:
            return None
        seen = await self._see(calls, previous)
        by_action = self._config.stop == "action"
        if previous is not None and not by_action:
            good = float(agent.good_enough(seen)[0])
            session.state["good_enough"] = [*session.state.get("good_enough", []), good]
            if good >= self._config.certain:
                return None
        allowed = [name in able for name in agent.members]
        if not any(allowed):  # the agent knows none of the live members
            return Choice(able[0], True) if previous is None else None
        logits = agent.logits(seen)[0].astype(np.float64)
        logits[~np.array([*allowed, by_action and previous is not None])] = -np.inf
        if self._config.choose == "sampled":
            draw = np.random.default_rng(
                derive_seed(session.query.seed, "route", session.question, calls)
            )
            logits = logits + draw.gumbel(size=len(logits))
        action = int(logits.argmax())
        if action == len(agent.members):
            return None
        return Choice(agent.members[action], last=calls + 1 >= self.most)

    async def _see(self, calls: int, previous: str | None) -> np.ndarray:
        """The state's features ``[1, size]``."""
        session, agent = self._session, self._agent
        reader = session.encoder
        if reader is not None and agent.reads and reader.identity != agent.reads:
            raise ConfigError(
                f"encoder {reader.name!r} is {reader.identity}, and the agent in "
                f"{self._config.agent} was trained with {agent.reads}; configure that, or train "
                "anew"
            )
        vector = await session.encode(state_text(session.question, previous))
        if len(vector) + 1 != agent.size:
            raise ConfigError(
                f"encoder {self._config.encoder!r} returns {len(vector)} values for a text, and "
                f"the agent in {self._config.agent} was trained on {agent.size - 1}; configure the "
                "encoder that it was trained with, or train it anew"
            )
        return features(vector[None], [min(calls, agent.t_max)], agent.t_max, agent.scale)
