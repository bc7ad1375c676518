"""The base of methods that call members one after another: turns calls into the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import AfterValidator, Field, model_validator

from policies.base import Need, Policy
from policies.cascade.sequential.transfer_prompt import TRANSFER, checked, transfer
from runtime.config.ensembles import PolicyConfig
from runtime.errors import BudgetSpent, ContextOverflow, MemberFailed, QuorumLost
from runtime.rng import derive_seed
from runtime.session.member import Member
from runtime.session.session import Session
from runtime.text.draft import Draft
from runtime.types.events import StopReason
from runtime.types.sampling import Sampling
from runtime.types.spans import Progress, Span

R = TypeVar("R", bound="RouteConfig")

Template = Annotated[str, AfterValidator(checked)]


class RouteConfig(PolicyConfig):
    transfer: Template = TRANSFER
    """The knowledge transfer prompt of every member but the first, with ``{question}`` and
    ``{previous}``."""
    prompts: dict[str, Template] = {}
    """Knowledge transfer prompts of members that have their own."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    chunk_tokens: int = Field(16, ge=4)
    """Tokens per streamed piece of the last answer."""

    @model_validator(mode="after")
    def _prompts_are_of_members(self) -> RouteConfig:
        for name in self.prompts:
            if name not in self.members:
                raise ValueError(f"prompts: {name!r} is not among members {list(self.members)}")
        return self

    def transfers(self) -> dict[str, str]:
        """Each member's knowledge transfer prompt."""
        return {name: self.prompts.get(name, self.transfer) for name in self.members}


@dataclass(frozen=True, slots=True)
class Choice:
    """The next call."""

    member: str
    last: bool
    """No call follows, so the answer is streamed as it is written."""


class Plan(ABC):
    """The decisions of one request."""

    most: int
    """Calls at most."""
    about: Mapping[str, Any] = {}
    """Part of the answer's metadata."""

    @abstractmethod
    async def choose(self, able: list[str]) -> Choice | None:
        """The next call, to one of ``able``; ``None`` stops, if there is an answer."""


class RoutePolicy(Policy[R]):
    """choose -> call, with the last answer to improve on -> choose again; the last answer counts.

    ``session.state["route"]`` holds the calls in order, each with its answer, or ``None`` where the
    member failed: that has spent a call, and the member is dropped. A member whose window cannot
    hold the last answer is skipped. A spent budget ends the route with the last answer.
    """

    level: ClassVar[str] = "cascade"
    needs: ClassVar[tuple[Need, ...]] = (Need("generate"),)
    no_logprobs_reason: ClassVar[str] = (
        "this method chooses whole answers and gives no token a score"
    )

    @abstractmethod
    async def plan(self, session: Session) -> Plan:
        """The plan of one request."""

    async def answer(self, session: Session) -> AsyncGenerator[Span | Progress, None]:
        state = session.state
        state.setdefault("route", [])
        plan = await self.plan(session)
        _report(session, plan)
        while session.ending is None:
            span = None
            try:
                if "emission" in state:
                    span = _next_line(session)
                elif "writing" in state:
                    span = await self._write(session)
                else:
                    await self._advance(session, plan)
            except (BudgetSpent, MemberFailed, QuorumLost) as fault:
                if session.text or last_answer(session) is None:
                    raise
                # The last answer stands; further calls could only have improved it.
                if not isinstance(fault, BudgetSpent):
                    session.warnings.append(f"the route ended early: {fault}")
                _stop(session, f"budget_{fault.which}" if isinstance(fault, BudgetSpent) else None)
            _report(session, plan)
            yield span or Progress(len(state["route"]), plan.most)

    async def _advance(self, session: Session, plan: Plan) -> None:
        """One more call, or the decision to stop."""
        passed = session.state.get("passed", [])
        able = [name for name in session.live if name not in passed]
        choice = await plan.choose(able) if able else None
        if choice is None:
            _stop(session)
            return
        try:
            member = self._member(session, choice.member)
        except ContextOverflow:
            if last_answer(session) is None:
                raise
            session.state["passed"] = [*passed, choice.member]
            session.warnings.append(f"{choice.member} cannot hold the last answer; not called")
            return
        if choice.last:
            session.state["writing"] = {"member": choice.member, "ids": []}
            return
        session.restrict_stops(choice.member)
        sampling = self._sampling(session, member, session.tokens_left)
        drafts = await session.each(lambda _: member.draft(sampling), [choice.member])
        call: dict[str, Any] = {"member": choice.member, "answer": None}
        if choice.member in drafts:
            draft = drafts[choice.member]
            # The next member, the encoder and the trace get the text that the caller would.
            call |= {"answer": session.cut_at_stop(draft.text).strip(), "final": draft.final}
            call |= {"ending": "length" if draft.finish == "length" else "eos"}
        session.state["route"].append(call)

    def _member(self, session: Session, name: str, text: str = "") -> Member:
        """The member with its transfer prompt as the question, after ``text``. Raises
        ``ContextOverflow``."""
        template = self.config.prompts.get(name, self.config.transfer)
        prompt = transfer(session.question, last_answer(session), template)
        return session.member_with_question(name, prompt, text)

    def _sampling(self, session: Session, member: Member, most: int) -> Sampling:
        sampling = session.sampling(
            member, most, temperature=self.config.temperature, top_p=self.config.top_p
        )
        # A member called again must not draw the same.
        return replace(sampling, seed=derive_seed(sampling.seed, len(session.state["route"])))

    async def _write(self, session: Session) -> Span | None:
        """The next piece of the last answer. If its author fails, the answer before it counts, or
        another member continues the text."""
        state = session.state
        name, ids = state["writing"]["member"], state["writing"]["ids"]
        try:
            member = self._member(session, name, session.text)
        except ContextOverflow:
            if not _successor(session, name):
                raise
            return None
        session.restrict_stops(name)
        size = max(1, min(self.config.chunk_tokens, session.tokens_left + 1))
        sampling = self._sampling(session, member, size)
        drafts = await session.each(lambda _: member.draft(sampling, ids), [name])
        if name not in drafts:
            state["route"].append({"member": name, "answer": None})
            if session.text:
                _successor(session, name)
                return None
            del state["writing"]
            if last_answer(session) is not None:
                _stop(session)
            return None
        draft = drafts[name]
        before = member.context.answer_ids if ids is None else ids
        written = draft.tokens[:-1] if draft.final else draft.tokens
        state["writing"] = {"member": name, "ids": [*before, *written]}
        span = session.commit(draft)
        if session.ending is not None:
            state["route"].append({"member": name, "answer": session.text.strip()})
            del state["writing"]
        return span


def _successor(session: Session, name: str) -> bool:
    """Selects another member to continue the text; false where all were tried."""
    tried = [*session.state.get("passed", []), name]
    session.state["passed"] = tried
    left = [one for one in session.live if one not in tried]
    if left:
        session.state["writing"] = {"member": left[0], "ids": None}
    return bool(left)


def _report(session: Session, plan: Plan) -> None:
    """Reports the route in the answer's metadata."""
    state = session.state
    route = [call["member"] for call in state["route"]]
    if "writing" in state:
        route.append(state["writing"]["member"])
    session.decision = {"route": route, **plan.about}


def last_answer(session: Session) -> str | None:
    """The answer of the last call that did not fail."""
    answers = [c["answer"] for c in session.state["route"] if c["answer"] is not None]
    return answers[-1] if answers else None


def _stop(session: Session, ending: str | None = None) -> None:
    """Begins to emit the last answer."""
    [*_, call] = [c for c in session.state["route"] if c["answer"] is not None]
    session.state.pop("writing", None)
    session.state["emission"] = {
        "author": call["member"],
        "lines": call["answer"].splitlines(keepends=True) or [""],
        "sent": 0,
        "final": call["final"],
        "ending": ending or call["ending"],
    }


def _next_line(session: Session) -> Span:
    """The next line of the last answer."""
    emission = session.state["emission"]
    line = emission["lines"][emission["sent"]]
    emission["sent"] += 1
    session.restrict_stops(emission["author"])
    last = emission["sent"] == len(emission["lines"])
    final = last and emission["final"] and emission["ending"] == "eos"
    span = session.commit(Draft(emission["author"], line, (), final=final, finish="stop"))
    if last and session.ending is None:
        session.ending = cast(StopReason, emission["ending"])
    return span
