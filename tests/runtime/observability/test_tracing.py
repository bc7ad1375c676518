"""Activities of an answer, recorded as OpenTelemetry's spans."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from pydantic import ValidationError

from runtime.call_context import current_call_context
from runtime.config.tracing import TracingConfig
from runtime.errors import QuorumLost
from runtime.observability.otel import recorder
from runtime.observability.tracing import (
    UNRECORDED,
    begin,
    current_activity,
    stop_recording,
    traced_activity,
)
from runtime.types.events import Ended, Written
from runtime.types.query import Message, Query
from tests.support.local_stack import DOG, animals, ask, running
from tests.support.observability.otel_spans import facts, named, own_id, parent, recorded

SWEET = {"type": "sweetspan", "span_words": 1}
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT = f"00-{TRACE}-{CALLER}-01"
WHO = (Message("user", "Who?"),)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recorded() as exporter:
        yield exporter


def flaky(**faults: Any) -> dict[str, Any]:
    config = animals(e=SWEET)
    config["members"]["dog"] = {"engine": {"type": "flaky", "engine": DOG, **faults}}
    return config


async def test_an_answer_that_is_requested_again_is_reported_as_resumed(
    spans: InMemorySpanExporter,
) -> None:
    async with running(animals(e=SWEET)) as stack:
        await ask(stack, "e", max_tokens=3)
        await ask(stack, "e", max_tokens=3, again=True)
    resumed = [facts(one)["orchestrion.resumed"] for one in named(spans, "chat e")]
    assert resumed == [False, True]


async def test_an_answers_activity_holds_its_calls_and_these_the_engines(
    spans: InMemorySpanExporter,
) -> None:
    async with running(animals(e=SWEET)) as stack:
        answer = await ask(stack, "e", traceparent=CLIENT, request_id="mine", max_tokens=3)
    [whole] = named(spans, "chat e")
    assert whole.context is not None and f"{whole.context.trace_id:032x}" == TRACE
    assert parent(whole) == int(CALLER, 16)
    for name in ("cat", "dog"):
        calls = named(spans, f"call {name}")
        assert len(calls) == answer.member(name)["calls"]
        assert {parent(call) for call in calls} == {own_id(whole)}
        engine = [*named(spans, f"generate {name}"), *named(spans, f"score {name}")]
        assert {parent(one) for one in engine} == {own_id(call) for call in calls}


async def test_an_activity_reports_models_tokens_and_the_outcome(
    spans: InMemorySpanExporter,
) -> None:
    async with running(animals(e=SWEET)) as stack:
        answer = await ask(stack, "e", temperature=0.5, seed=3)
    [whole] = named(spans, "chat e")
    attributes = facts(whole)
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == attributes["orchestrion.ensemble"] == "e"
    assert (attributes["gen_ai.request.temperature"], attributes["gen_ai.request.seed"]) == (0.5, 3)
    assert "gen_ai.request.top_p" not in attributes
    assert attributes["gen_ai.usage.input_tokens"] == answer.end.prompt_tokens
    assert attributes["gen_ai.usage.output_tokens"] == answer.end.completion_tokens
    assert (
        attributes["orchestrion.outcome"] == "eos"
        and attributes["orchestrion.method"] == "sweetspan"
    )
    assert attributes["orchestrion.trace_id"] == "t" and attributes["orchestrion.degraded"] is False
    written = sum(facts(one)["gen_ai.usage.output_tokens"] for one in named(spans, "generate cat"))
    assert written == answer.member("cat")["completion_tokens"]


async def test_a_failed_call_and_its_repetition_are_two_activities(
    spans: InMemorySpanExporter,
) -> None:
    async with running(flaky(fails_at=[1])) as stack:
        await ask(stack, "e")
    first, second, *_ = named(spans, "call dog")
    assert facts(first)["error.type"] == "EngineFault"
    assert first.status.status_code is StatusCode.ERROR and first.status.description is None
    assert [facts(one)["orchestrion.attempt"] for one in (first, second)] == [0, 1]
    assert second.status.status_code is StatusCode.UNSET


async def test_an_answer_that_failed_ends_its_activity_with_the_errors_type(
    spans: InMemorySpanExporter,
) -> None:
    config = flaky(fails_from=3)
    config["ensembles"]["e"]["quorum"] = 2
    async with running(config) as stack:
        with pytest.raises(QuorumLost):
            await ask(stack, "e")
    [whole] = named(spans, "chat e")
    assert facts(whole)["error.type"] == facts(whole)["orchestrion.outcome"] == "QuorumLost"


async def test_a_client_that_leaves_ends_the_activity_without_an_error(
    spans: InMemorySpanExporter,
) -> None:
    async with running(animals(e=SWEET)) as stack:
        events = stack.models["e"].answer(Query(id="t", model="e", messages=WHO))
        await anext(events)
        assert not named(spans, "chat e")
        await events.aclose()
    [whole] = named(spans, "chat e")
    assert facts(whole)["orchestrion.outcome"] == "cancelled"
    assert "error.type" not in facts(whole) and whole.status.status_code is StatusCode.UNSET


async def test_no_activity_holds_text(spans: InMemorySpanExporter) -> None:
    async with running(flaky(fails_at=[1])) as stack:
        answer = await ask(stack, "e", messages=(Message("user", "Whodunnit?"),))
    exported = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "Whodunnit" not in exported and answer.text.strip() not in exported


async def test_answers_of_one_task_do_not_mix_their_activities(
    spans: InMemorySpanExporter,
) -> None:
    """A generator's steps run in the context of whoever asks for them."""
    async with running(animals(e=SWEET)) as stack:
        streams = [
            stack.models["e"].answer(Query(id=name, model="e", messages=WHO)) for name in "ab"
        ]
        last = [await anext(one) for one in streams]
        assert current_activity() is UNRECORDED and current_call_context().request == ""
        while not all(isinstance(event, Ended) for event in last):
            last = [await anext(one, end) for one, end in zip(streams, last, strict=True)]
        for one in streams:
            await one.aclose()
    wholes = {own_id(span): facts(span)["orchestrion.trace_id"] for span in named(spans, "chat e")}
    assert sorted(wholes.values()) == ["a", "b"]
    calls = {own_id(call): parent(call) for call in named(spans, "call cat")}
    for engine in named(spans, "generate cat"):
        answer = calls[parent(engine) or 0]
        assert facts(engine)["orchestrion.trace_id"] == wholes[answer or 0]


async def test_texts_are_the_same_with_and_without_recording() -> None:
    async with running(animals(e=SWEET)) as stack:
        bare = await ask(stack, "e")
        with recorded():
            traced = await ask(stack, "e")
    assert [event.text for event in traced.written] == [event.text for event in bare.written]
    assert isinstance(bare.written[0], Written)


def test_nothing_is_recorded_where_nobody_requested_it() -> None:
    assert begin("x", {}) is UNRECORDED
    with traced_activity("x", {}) as activity:
        assert activity is UNRECORDED is current_activity()
    script = (
        "import sys, deployments.launch.in_process;"
        "print('runtime.observability.otel' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_malformed_traceparent_begins_a_trace_of_its_own(spans: InMemorySpanExporter) -> None:
    for given in ("nonsense", "00-zz-1-01", f"00-{'0' * 32}-{CALLER}-01"):
        with traced_activity("x", {}, parent=given):
            pass
    assert [span.parent for span in spans.get_finished_spans()] == [None] * 3


def test_what_the_client_decided_against_is_not_sampled(tmp_path: Path) -> None:
    exporter = recorder(TracingConfig(exporter="file", folder=str(tmp_path), sample=1.0), "gateway")
    exporter.start("no", "server", CLIENT[:-2] + "00", {}).end()
    exporter.start("yes", "server", CLIENT, {"a": 1, "b": None}).end("QuorumLost")
    exporter.close()
    [file] = tmp_path.iterdir()
    [line] = [json.loads(line) for line in file.read_text().splitlines()]
    assert line["name"] == "yes" and line["parent_id"] == f"0x{CALLER}"
    assert line["attributes"] == {"a": 1, "error.type": "QuorumLost"}
    assert line["resource"]["attributes"]["service.name"] == "orchestrion"
    assert line["resource"]["attributes"]["orchestrion.process"] == "gateway"


def test_the_standard_variables_name_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    exporter = recorder(TracingConfig(exporter="file", folder=str(tmp_path)), "gateway")
    exporter.start("no", "server", "", {}).end()
    exporter.start("yes", "server", "", {}).end()
    assert exporter._provider.resource.attributes["service.name"] == "ours"
    exporter.close()
    assert [file.read_text() for file in tmp_path.iterdir()] == [""]


async def test_a_collector_that_is_not_there_disturbs_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that its thread, which draws pauses at random, is gone when the next test begins.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    config = animals(e=SWEET) | {"tracing": {"endpoint": "http://127.0.0.1:9/v1/traces"}}
    async with asyncio.timeout(60), running(config) as stack:
        answer = await ask(stack, "e")
        assert answer.end.stop_reason == "eos"
    assert begin("x", {}) is UNRECORDED
    stop_recording()
    left = [thread.name for thread in threading.enumerate()]
    assert not [name for name in left if "Otel" in name or "(shutdown)" in name], left


@pytest.mark.parametrize(
    "given",
    [
        {"exporter": "file"},
        {"folder": "spans"},
        {"exporter": "console", "endpoint": "http://localhost:4318"},
        {"endpoint": "localhost:4318"},
        {"sample": 1.5},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TracingConfig.model_validate(given)
