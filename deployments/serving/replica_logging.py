"""Logs and activities of one Serve replica."""

from __future__ import annotations

import copy
import logging
from typing import Final

from runtime.config.tracing import TracingConfig
from runtime.errors import ConfigError
from runtime.observability.logs import ROOMS, attribute
from runtime.observability.tracing import record_with

SERVE: Final = "ray.serve"


class ToServe(logging.Handler):
    """Hands our lines on to Serve's logger, so that they come into the replica's own file in the
    encoding that Serve is configured for. Its handlers and level are looked up each time: Serve
    replaces them when its logging configuration changes."""

    def emit(self, record: logging.LogRecord) -> None:
        serve = logging.getLogger(SERVE)
        if not serve.isEnabledFor(record.levelno):
            return
        attribute(record)
        told = copy.copy(record)
        if trace_id := getattr(record, "trace_id", ""):
            try:  # Serve's text lines show no fields of ours
                told.msg, told.args = f"[{trace_id}] {record.getMessage()}", None
            except (TypeError, ValueError):  # arguments that do not fit: must not break a request
                self.handleError(record)
                return
        serve.handle(told)


def observe(process: str, tracing: TracingConfig | None = None) -> None:
    """Once for each replica. ``process`` is what spans call it."""
    for room in ROOMS:
        logger = logging.getLogger(room)
        if not any(isinstance(handler, ToServe) for handler in logger.handlers):
            logger.addHandler(ToServe())
        logger.setLevel(logging.DEBUG)  # Serve's level decides
    if tracing is not None:
        trace(tracing, process)


def trace(tracing: TracingConfig, process: str) -> None:
    """Raises ``ConfigError`` where OpenTelemetry is not installed."""
    try:
        from runtime.observability.otel import recorder
    except ImportError as missing:
        raise ConfigError(
            f"tracing is configured, but {missing.name} is not installed; "
            "pip install 'orchestrion[otel]', or leave tracing out"
        ) from None
    record_with(recorder(tracing, process))
