"""A session whose members are not token-level engines: what answer-level methods build on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from runtime.calls.ledger import Ledger
from runtime.calls.retries import booked
from runtime.config.ensembles import BudgetConfig, PolicyConfig
from runtime.config.members import MemberConfig
from runtime.coordinator.summary import summarise
from runtime.coordinator.trace_log import record
from runtime.errors import BudgetSpent, EngineFault, QuorumLost
from runtime.observability.metrics import Counts
from runtime.observability.recorder import AnswerRecorder
from runtime.session.session import RequestSession
from runtime.types.events import Checkpoint, MemberUsage
from runtime.types.query import Message, Query

CONFIG = MemberConfig.model_validate({"engine": {"type": "echo"}, "retries": 0})


@dataclass
class WholeAnswers:
    """A model that gives whole answers and has no tokenizer."""

    name: str
    answer: str
    fails: bool = False
    config: MemberConfig = CONFIG
    opened: int = field(default=0, init=False)

    async def open(self) -> None:
        self.opened += 1
        if self.fails:
            raise EngineFault(f"{self.name} is down")


@dataclass
class Caller:
    """One of these models in one session."""

    connection: WholeAnswers
    ledger: Ledger

    async def ask(self) -> str:
        async def once(attempt: int) -> str:
            if self.connection.answer == "":
                raise EngineFault("it has no answer")
            return self.connection.answer

        name = self.connection.name
        reply = await booked(self.connection.config, name, self.ledger, once)
        self.ledger.book(name, MemberUsage(prompt_tokens=3, completion_tokens=len(reply)))
        return reply


def session(
    *models: WholeAnswers,
    quorum: int = 1,
    checkpoint: Checkpoint | None = None,
    budget: BudgetConfig | None = None,
) -> RequestSession[WholeAnswers, Caller]:
    config = PolicyConfig(
        type="vote",
        members=tuple(model.name for model in models),
        quorum=quorum,
        budget=budget or BudgetConfig(),
    )
    return RequestSession(
        Query(id="t", model="vote", messages=(Message("user", "Who?"),)),
        config,
        {model.name: model for model in models},
        AnswerRecorder("vote", Counts()),
        Caller,
        checkpoint,
    )


async def test_a_vote_over_whole_answers_needs_no_tokens() -> None:
    one = session(WholeAnswers("a", "cat"), WholeAnswers("b", "dog"), WholeAnswers("c", "cat"))
    await one.open()
    replies = await one.each(lambda member: member.ask())
    assert replies == {"a": "cat", "b": "dog", "c": "cat"}
    span = one.append("a", "cat", "eos")
    assert (one.text, one.ending, one.step, span.final) == ("cat", "eos", 1, True)
    assert one.question == "Who?"
    result = summarise(one, level="selection", stop_reason="eos", currency="USD")
    assert result["usage"]["model_calls"] == 3
    assert result["usage"]["prompt_tokens"] == 9
    assert [member["share"] for member in result["members"]] == [1.0, 0.0, 0.0]
    row: dict[str, Any] = record(one, stop_reason="eos", error=None, store_text=True)
    assert (row["answer"], row["method"]) == ("cat", "vote")


async def test_a_member_that_fails_is_dropped_and_the_others_answer() -> None:
    one = session(WholeAnswers("a", "cat"), WholeAnswers("b", "", fails=False))
    await one.open()
    assert await one.each(lambda member: member.ask()) == {"a": "cat"}
    assert list(one.live) == ["a"]
    assert list(one.dropped) == ["b"]


async def test_members_that_cannot_be_opened_count_against_the_quorum() -> None:
    one = session(WholeAnswers("a", "cat"), WholeAnswers("b", "dog", fails=True), quorum=2)
    with pytest.raises(QuorumLost):
        await one.open()


async def test_live_members_keep_the_order_of_the_ensemble() -> None:
    one = session(*(WholeAnswers(name, name) for name in "cab"))
    await one.open()
    assert list(one.live) == ["c", "a", "b"]


async def test_a_call_beyond_the_budget_is_not_made() -> None:
    one = session(WholeAnswers("a", "cat"), budget=BudgetConfig(calls=1))
    await one.open()
    await one.each(lambda member: member.ask())
    with pytest.raises(BudgetSpent):
        await one.each(lambda member: member.ask())


async def test_another_session_resumes_from_a_checkpoint() -> None:
    models = (WholeAnswers("a", "cat"), WholeAnswers("b", ""))
    first = session(*models)
    await first.open()
    await first.each(lambda member: member.ask())
    first.append("a", "the ")
    first.state["calls"] = ["a"]
    second = session(*models, checkpoint=first.checkpoint())
    await second.open()
    assert (second.text, second.step, second.ending) == ("the ", 1, None)
    assert second.state == {"calls": ["a"]}
    assert list(second.live) == ["a"]  # a dropped member stays so
    assert second.ledger.spent().calls == first.ledger.spent().calls
    second.append("a", "cat", "eos")
    assert second.text == "the cat"
