"""A collector of OpenTelemetry spans on loopback, and what an exported span holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class ReceivedSpan:
    """One span."""

    trace: str
    id: str
    parent: str
    name: str
    process: str
    """Which part of Orchestrion exported it, and its process id."""
    pid: int
    attributes: dict[str, Any]


class Collector:
    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.url = ""

    def wait_for(self, trace: str, names: set[str], seconds: float = 30) -> list[ReceivedSpan]:
        """The spans of a trace, once all these are among them and each one's parent is."""
        deadline = time.monotonic() + seconds
        while True:
            found = [one for one in self.spans if one.trace == trace]
            known = {one.id for one in found}
            orphans = [one for one in found if one.parent not in known]
            if names <= {one.name for one in found} and len(orphans) == 1:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for resource in request.resource_spans:
        about = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    about["orchestrion.process"],
                    about["process.pid"],
                    _attributes(span.attributes),
                )


def _attributes(listed: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in listed}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    result = getattr(value, kind)
    return [_value(one) for one in result.values] if kind == "array_value" else result
