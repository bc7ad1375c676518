"""Lines of the log: whose request they belong to, and what they tell."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from runtime.call_context import (
    CallContext,
    RequestIds,
    current_request,
    request_context,
    use_call_context,
)
from runtime.errors import QuorumLost
from runtime.observability.logs import ROOMS, log_event, logging_to
from runtime.types.query import Message, Query
from tests.support.local_stack import DOG, animals, ask, running

SWEET = {"type": "sweetspan", "span_words": 1}
logger = logging.getLogger("runtime.test")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def flaky(**faults: Any) -> dict[str, Any]:
    config = animals(e=SWEET)
    config["members"]["dog"] = {"engine": {"type": "flaky", "engine": DOG, **faults}}
    return config


async def test_an_answer_is_one_line_with_the_clients_id_and_ours() -> None:
    stream = io.StringIO()
    async with running(animals(e=SWEET)) as stack:
        with logging_to(stream, "json"):
            answer = await ask(stack, "e", request_id="mine")
    [line] = lines(stream)
    assert (line["trace_id"], line["request_id"]) == ("t", "mine")
    assert (line["ensemble"], line["outcome"]) == ("e", "eos")
    assert line["tokens"] == answer.end.completion_tokens
    assert line["levelname"] == "INFO" and line["seconds"] > 0
    assert current_request() == RequestIds()


async def test_text_lines_begin_with_the_ids() -> None:
    stream = io.StringIO()
    async with running(animals(e=SWEET)) as stack:
        with logging_to(stream):
            await ask(stack, "e", request_id="mine")
    [line] = stream.getvalue().splitlines()
    assert (
        line.startswith("INFO 2")
        and " runtime.observability.recorder t mine -- answer ended ensemble=e" in line
    )


async def test_a_member_that_is_called_again_and_dropped_leaves_a_warning_each() -> None:
    stream = io.StringIO()
    async with running(flaky(fails_from=3)) as stack:
        with logging_to(stream, "json"):
            await ask(stack, "e")
    again, dropped, ended = lines(stream)
    assert again["levelname"] == dropped["levelname"] == "WARNING"
    assert again["message"].startswith("member called again member=dog") and again["attempt"] == 1
    assert dropped["message"].startswith("member dropped ensemble=e member=dog")
    assert dropped["trace_id"] == again["trace_id"] == "t"
    assert ended["degraded"] == "yes"


async def test_an_answer_that_failed_is_a_warning_and_one_that_was_left_is_none() -> None:
    config = flaky(fails_from=3)
    config["ensembles"]["e"]["quorum"] = 2
    stream = io.StringIO()
    async with running(config) as stack:
        with logging_to(stream, "json"):
            with pytest.raises(QuorumLost):
                await ask(stack, "e")
            events = stack.models["cat"].answer(
                Query(id="left", model="cat", messages=(Message("user", "Who?"),))
            )
            await anext(events)
            await events.aclose()
    *_, failed, left = lines(stream)
    assert (failed["outcome"], failed["levelname"]) == ("QuorumLost", "WARNING")
    assert (left["outcome"], left["levelname"]) == ("cancelled", "INFO")
    assert left["trace_id"] == "left"


async def test_no_line_holds_text_of_prompts_or_answers() -> None:
    stream = io.StringIO()
    async with running(flaky(fails_from=3)) as stack:
        with logging_to(stream, "json", logging.DEBUG):
            answer = await ask(stack, "e", messages=(Message("user", "Whodunnit?"),))
    assert "answer started" in stream.getvalue()
    assert "Whodunnit" not in stream.getvalue() and answer.text.strip() not in stream.getvalue()


def test_an_engines_lines_are_those_of_its_call() -> None:
    stream = io.StringIO()
    with logging_to(stream, "json"):
        with use_call_context(CallContext("of-the-call")):
            logger.info("x")
        with (
            use_call_context(CallContext("of-the-call")),
            request_context(RequestIds("mine", "of-the-request")),
        ):
            logger.info("x")
        logger.info("x")
    first, second, third = lines(stream)
    assert first["trace_id"] == "of-the-call" and "request_id" not in first
    assert (second["trace_id"], second["request_id"]) == ("of-the-request", "mine")
    assert "trace_id" not in third


def test_what_facts_say_cannot_begin_a_line_of_its_own() -> None:
    stream = io.StringIO()
    with logging_to(stream):
        log_event(
            logger, logging.INFO, "member dropped", reason='a "b"\nERROR x', step=2, cost=None
        )
    [line] = stream.getvalue().splitlines()
    assert line.endswith('member dropped reason="a \\"b\\"\\nERROR x" step=2')


def test_lines_stop_where_the_program_no_longer_wants_them() -> None:
    def state() -> list[tuple[int, int]]:
        rooms = map(logging.getLogger, ROOMS)
        return [(room.level, len(room.handlers)) for room in rooms]

    before, stream = state(), io.StringIO()
    with logging_to(stream):
        pass
    logger.error("x")
    assert not stream.getvalue() and state() == before
