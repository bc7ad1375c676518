"""Both members of token routing over their connections: failures, windows and stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deployments.config.app_config import AppConfig
from deployments.launch.backends import InProcessBackends
from deployments.wiring import connect
from envs.members.event_loop import EventLoopThread
from envs.token_routing import model_pair as pairs
from envs.token_routing.model_pair import LivePair
from runtime.errors import ConfigError
from runtime.observability.metrics import Counts
from tests.support.local_stack import DOG
from tests.support.models.deferral_pair import LARGE, NAMES, SMALL


@contextmanager
def pair(small: dict[str, Any], large: dict[str, Any]) -> Iterator[LivePair]:
    config = AppConfig.model_validate({"members": {"small": small, "large": large}})
    made = LivePair(
        lambda: connect(config.members, InProcessBackends(config).members(tuple(NAMES))),
        *NAMES,
        Counts(),
        EventLoopThread("test"),
    )
    try:
        yield made
    finally:
        made.close()


def flaky(engine: dict[str, Any], fails_from: int) -> dict[str, Any]:
    return {"engine": {"type": "flaky", "engine": engine, "fails_from": fails_from}, "retries": 0}


def test_a_path_is_requested_once() -> None:
    with pair({"engine": SMALL}, {"engine": LARGE}) as members:
        text = members.encode(" the cat sat.")
        for end in range(len(text)):
            [look], [token] = (
                members.looks(["q"], [text[:end]]),
                members.large_tokens(["q"], [text[:end]]),
            )
            assert look is not None and look.state.shape == (members.width,) and token is not None
            assert look.own == text[end]  # the small one would write just this


def test_a_failed_member_is_none_in_its_place() -> None:
    with pair({"engine": SMALL}, flaky(LARGE, 1)) as members:
        assert members.large_tokens(["q"], [()]) == [None]
        assert members.looks(["q"], [()])[0] is not None
        assert members.teacher_force(["q"], [members.encode(" the")]) == [None]


def test_a_text_beyond_a_window_is_none_in_its_place() -> None:
    short = {"engine": {**SMALL, "context_length": 24}}
    with pair(short, {"engine": LARGE}) as members:
        long = members.encode(" the cat sat and" * 12)
        taught = members.teacher_force(["q", "q"], [long, members.encode(" the cat")])
        assert taught[0] is None and taught[1] is not None


def test_answers_end_where_they_are_served_to() -> None:
    with pair({"engine": SMALL, "stop": [" sat"]}, {"engine": LARGE}) as members:
        [written] = members.write_on(["q"], [()], None, 0.5, 16)
        assert written is not None and members.decode(written) == " the cat"
        assert members.ends(written) and not members.ends(written[:1])


def test_what_is_forgotten_is_requested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "REMEMBERED", 2)
    with pair({"engine": SMALL}, {"engine": LARGE}) as members:
        text = members.encode(" the cat sat.")
        answers = [text[:end] for end in range(len(text))]
        for _ in range(2):
            assert all(members.looks(["q"] * len(answers), answers))


def test_members_that_share_no_tokenizer_are_refused() -> None:
    with (
        pair({"engine": SMALL}, {"engine": DOG}) as members,
        pytest.raises(ConfigError, match="do not share a tokenizer"),
    ):
        members.looks(["q"], [()])
