"""Activities as OpenTelemetry spans. Imported only when tracing is configured."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime.config.tracing import TracingConfig
from runtime.observability.tracing import Activity, Facts, Kind

SCOPE: Final = "orchestrion"
SHUTDOWN_S: Final = 3.0
"""Seconds to export the last spans at the end of a process."""
_KINDS: Final = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "internal": trace.SpanKind.INTERNAL,
}


class OtelActivity:
    """An ``Activity`` backed by an OpenTelemetry span."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def note(self, facts: Facts) -> None:
        self._span.set_attributes(
            {name: value for name, value in facts.items() if value is not None}
        )

    def end(self, error: str | None = None) -> None:
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


class OtelRecorder:
    """A ``Recorder`` backed by an OpenTelemetry tracer provider."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(SCOPE)
        self._propagator = TraceContextTextMapPropagator()

    def start(self, name: str, kind: Kind, parent: str, facts: Facts) -> Activity:
        # An empty context: the parent is explicit, whatever else is traced in this process.
        context = self._propagator.extract({"traceparent": parent}, context=Context())
        activity = OtelActivity(self._tracer.start_span(name, context, _KINDS[kind]))
        activity.note(facts)
        return activity

    def close(self) -> None:
        # An unreachable collector must not delay the end of the process.
        shutdown_thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        shutdown_thread.start()
        shutdown_thread.join(SHUTDOWN_S)


def recorder(config: TracingConfig, process: str) -> OtelRecorder:
    """A recorder as configured. ``process``: the role of this process, such as "gateway"."""
    attributes: dict[str, str | int] = {
        "orchestrion.process": process,
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    if "OTEL_SERVICE_NAME" not in os.environ:
        attributes["service.name"] = SCOPE
    # Without a sampler the provider reads OTEL_TRACES_SAMPLER.
    sampler = None if config.sample is None else ParentBasedTraceIdRatio(config.sample)
    provider = TracerProvider(sampler, Resource.create({**attributes}), shutdown_on_exit=False)
    exporter = _exporter(config, process)
    if config.exporter == "otlp":
        provider.add_span_processor(BatchSpanProcessor(exporter))
    else:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    recorder = OtelRecorder(provider)
    atexit.register(recorder.close)  # for the gateway: Serve gives no shutdown hook
    return recorder


def _exporter(config: TracingConfig, process: str) -> SpanExporter:
    match config.exporter:
        case "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter(endpoint=config.endpoint)
        case "console":
            return ConsoleSpanExporter(out=sys.stdout, formatter=_line)
        case "file":
            assert config.folder is not None  # checked by its validator
            folder = Path(config.folder)
            folder.mkdir(parents=True, exist_ok=True)
            name = f"spans-{socket.gethostname()}-{os.getpid()}.jsonl"
            return _FileExporter(folder / name)


class _FileExporter(ConsoleSpanExporter):
    """Line buffered, so that the spans of a killed process are kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(out=path.open("a", buffering=1), formatter=_line)

    def shutdown(self) -> None:
        self.out.close()


def _line(span: ReadableSpan) -> str:
    return span.to_json(indent=None) + "\n"
