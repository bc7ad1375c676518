"""Live members behind an environment, on scripted engines in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from deployments.launch.in_process import LocalChannel
from deployments.wiring import connect
from envs.members.event_loop import EventLoopThread
from envs.members.live import LiveMembers
from runtime.config.engines import EchoEngine, FlakyEngine
from runtime.config.members import MemberConfig, Price
from runtime.data.query_log import MemberCall
from runtime.engines import build_engine
from runtime.observability.metrics import Counts
from runtime.session.connection import Connection
from runtime.types.sampling import Sampling

MEMBERS = {
    "echo": MemberConfig(engine=EchoEngine(), price=Price(input=1.0, output=2.0)),
    "brief": MemberConfig(engine=EchoEngine(), stop=("three",)),
    "broken": MemberConfig(
        engine=FlakyEngine(engine=EchoEngine(), fails_from=1),
        price=Price(input=1.0),
        retries=0,
    ),
}


def connections() -> Mapping[str, Connection]:
    channels = {
        name: LocalChannel(build_engine(member.served_engine)) for name, member in MEMBERS.items()
    }
    return connect(MEMBERS, channels)


@pytest.fixture
def members() -> Iterator[LiveMembers]:
    live = LiveMembers(
        connections,
        Sampling(400),
        {"echo": "{question}|{previous}"},
        Counts(),
        EventLoopThread("a test"),
    )
    yield live
    live.close()


def test_a_member_is_called_and_priced(members: LiveMembers) -> None:
    [reply] = members.ask([MemberCall("echo", "hello")])
    assert reply.text is not None and "hello" in reply.text and reply.error is None
    assert reply.cost > 0 and reply.seconds > 0


def test_a_later_member_is_shown_the_last_answer_in_its_own_prompt(members: LiveMembers) -> None:
    [reply] = members.ask([MemberCall("echo", "hello", "good bye")])
    assert reply.text is not None and "hello|good bye" in reply.text


def test_a_failure_is_a_reply_that_costs(members: LiveMembers) -> None:
    broken, well = members.ask([MemberCall("broken", "hello"), MemberCall("echo", "hello")])
    assert broken.text is None and broken.error and broken.cost > 0
    assert well.text is not None


def test_closing_twice_does_no_harm(members: LiveMembers) -> None:
    members.ask([MemberCall("echo", "hello")])
    members.close()
    members.close()


def test_a_members_own_stop_ends_its_answer(members: LiveMembers) -> None:
    [reply] = members.ask([MemberCall("brief", "one two three four")])
    assert reply.text == "one two"
