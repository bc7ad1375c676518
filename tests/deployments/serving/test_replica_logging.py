"""Our lines in the logs of Serve's replicas; test_serve_observability.py has the real ones."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.serving.replica_logging import SERVE, observe, trace
from runtime.call_context import CallContext, RequestIds, request_context, use_call_context
from runtime.config.tracing import TracingConfig
from runtime.errors import ConfigError
from runtime.observability.logs import ROOMS, Json, log_event, logging_to
from runtime.observability.metrics import RESUMED, Counts
from runtime.types.events import Ended, Event
from runtime.types.query import Query

logger = logging.getLogger("runtime.test")


@pytest.fixture
def serves_own() -> Iterator[io.StringIO]:
    """Serve's logger as in a replica, and ours sent there."""
    import ray.serve  # noqa: F401 (which gives its logger handlers)

    stream, serve = io.StringIO(), logging.getLogger(SERVE)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Json())
    rooms = [logging.getLogger(room) for room in ROOMS]
    before = [(one, one.level, one.handlers[:], one.propagate) for one in [serve, *rooms]]
    serve.handlers, serve.propagate = [handler], False
    serve.setLevel(logging.INFO)
    observe("member cat")
    observe("member cat")
    yield stream
    for one, level, handlers, propagate in before:
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def test_our_lines_come_into_serves_log_once_and_at_its_level(serves_own: io.StringIO) -> None:
    with use_call_context(CallContext("abc")):
        logger.info("%s came", "x")
        logger.debug("unheard")
    logging.getLogger(SERVE).setLevel(logging.ERROR)
    logger.warning("unheard")
    [line] = map(json.loads, serves_own.getvalue().splitlines())
    assert line["message"] == "[abc] x came" and line["trace_id"] == "abc"


def test_serves_formatters_show_our_ids(serves_own: io.StringIO) -> None:
    from ray._common.formatters import JSONFormatter
    from ray.serve._private.logging_utils import ServeFormatter

    handler = logging.getLogger(SERVE).handlers[0]
    handler.setFormatter(JSONFormatter())
    with request_context(RequestIds("mine", "abc")):
        log_event(logger, logging.INFO, "answer ended", ensemble="e")
        handler.setFormatter(ServeFormatter("ensemble-e", "f8v2"))
        log_event(logger, logging.INFO, "answer ended", ensemble="e")
    result, text = serves_own.getvalue().splitlines()
    assert (
        json.loads(result).items()
        >= {"trace_id": "abc", "request_id": "mine", "ensemble": "e"}.items()
    )
    assert text.endswith("ensemble-e f8v2 mine -- [abc] answer ended ensemble=e")


def test_tracing_without_opentelemetry_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "runtime.observability.otel", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[otel\]'"):
        trace(TracingConfig(), "gateway")


class Stream:
    """What a handle gives for a call: messages of events, or the loss of whoever sends them."""

    def __init__(self, *messages: list[Event] | Exception) -> None:
        self._messages = list(messages)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> list[Event]:
        if not self._messages:
            raise StopAsyncIteration
        message = self._messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    def cancel(self) -> None:
        pass


class Handle:
    """Of a coordinator that is lost once."""

    card = decode = stats = None

    def __init__(self, *streams: Stream) -> None:
        self._streams = list(streams)
        self.answer = self

    def options(self, **_: object) -> Handle:
        return self

    def remote(self, *_: object) -> Stream:
        return self._streams.pop(0)


async def test_a_lost_coordinator_leaves_a_line_with_the_requests_ids() -> None:
    from ray.exceptions import ActorDiedError

    from deployments.handles.ensemble import ServeEnsemble

    end = Ended("stop", "eos", 1, 1, {})
    handle: Any = Handle(Stream(ActorDiedError()), Stream([end]))
    counts = Counts()
    stream = io.StringIO()
    with logging_to(stream, "json"), request_context(RequestIds("mine", "abc")):
        events = ServeEnsemble("e", handle, counts).answer(Query(id="abc", model="e"))
        assert [event async for event in events] == [end]
    [line] = map(json.loads, stream.getvalue().splitlines())
    assert line["message"].startswith("coordinator lost, resuming ensemble=e why=ActorDiedError")
    assert (line["trace_id"], line["request_id"]) == ("abc", "mine")
    assert (line["levelname"], line["lost"]) == ("WARNING", 1)
    assert counts.value(RESUMED, "e", "coordinator") == 1
