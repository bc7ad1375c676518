"""Log records with request ids, and formatters for processes without a server's log setup.

Records contain no text of prompts or answers. docs/observability.md lists them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TextIO

from runtime.call_context import current_call_context, current_request

ROOMS: Final = ("runtime", "policies", "envs", "deployments")
"""Root loggers of our packages."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def attribute(record: logging.LogRecord) -> None:
    """Adds ``trace_id`` and ``request_id`` of the current request to a record, if there is one."""
    request = current_request()
    ids = {
        "trace_id": request.trace_id or current_call_context().request,
        "request_id": request.request_id,
    }
    for name, value in ids.items():
        if value and not hasattr(record, name):
            setattr(record, name, value)


def log_event(logger: logging.Logger, level: int, what: str, **facts: str | float | None) -> None:
    """Logs one event. ``facts`` are part of the message and fields of the JSON record."""
    if not logger.isEnabledFor(level):
        return
    known = {name: value for name, value in facts.items() if value is not None}
    listed = " ".join(f"{name}={_shown(value)}" for name, value in known.items())
    logger.log(level, "%s %s", what, listed, extra=known, stacklevel=2)


def _shown(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    plain = text.isascii() and text.isprintable() and not set(text) & {" ", '"', "="}
    return text if text and plain else json.dumps(text)


class Attributed(logging.Filter):
    """Handler filter that passes every record and adds the request ids."""

    def filter(self, record: logging.LogRecord) -> bool:
        attribute(record)
        return True


class Text(logging.Formatter):
    """Formats a record as one line of text."""

    def usesTime(self) -> bool:
        return True

    def formatMessage(self, record: logging.LogRecord) -> str:
        values = (getattr(record, name, None) for name in ("trace_id", "request_id"))
        ids = "".join(f" {id_}" for id_ in values if id_)
        return f"{record.levelname} {record.asctime} {record.name}{ids} -- {record.message}"


class Json(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "name": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def logging_to(
    stream: TextIO, encoding: Literal["text", "json"] = "text", level: int = logging.INFO
) -> Iterator[None]:
    """Logs our packages to ``stream`` inside the block, for programs that run the whole stack."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Json() if encoding == "json" else Text())
    handler.addFilter(Attributed())
    loggers = [logging.getLogger(room) for room in ROOMS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)
