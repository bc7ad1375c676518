"""Logs and traces of one Serve replica."""

from __future__ import annotations

import copy
import logging
from typing import Final

from runtime.config.tracing import TracingConfig
from runtime.errors import ConfigError
from runtime.observability.logs import ROOMS, attribute
from runtime.observability.tracing import set_recorder

SERVE: Final = "ray.serve"


class ServeLogHandler(logging.Handler):
    """Forwards our log records to Serve's logger, so that they appear in the replica's log file in
    the configured encoding. The logger is looked up for each record: Serve replaces its handlers
    and level when its logging configuration changes."""

    def emit(self, record: logging.LogRecord) -> None:
        serve = logging.getLogger(SERVE)
        if not serve.isEnabledFor(record.levelno):
            return
        attribute(record)
        copied = copy.copy(record)
        if trace_id := getattr(record, "trace_id", ""):
            try:  # Serve's text format shows no extra fields
                copied.msg, copied.args = f"[{trace_id}] {record.getMessage()}", None
            except (
                TypeError,
                ValueError,
            ):  # arguments that do not match the message must not break a request
                self.handleError(record)
                return
        serve.handle(copied)


def observe(process: str, tracing: TracingConfig | None = None) -> None:
    """Sets up logs and tracing, once for each replica. ``process`` is its name in spans."""
    for room in ROOMS:
        logger = logging.getLogger(room)
        if not any(isinstance(handler, ServeLogHandler) for handler in logger.handlers):
            logger.addHandler(ServeLogHandler())
        logger.setLevel(logging.DEBUG)  # Serve's level decides
    if tracing is not None:
        trace(tracing, process)


def trace(tracing: TracingConfig, process: str) -> None:
    """Starts tracing. Raises ``ConfigError`` if OpenTelemetry is not installed."""
    try:
        from runtime.observability.otel import recorder
    except ImportError as missing:
        raise ConfigError(
            f"tracing is configured, but {missing.name} is not installed; "
            "pip install -e '.[otel]', or leave tracing out"
        ) from None
    set_recorder(recorder(tracing, process))
