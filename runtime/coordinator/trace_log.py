"""The record of finished requests: one Parquet data set, a file for each flush."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from runtime.config.gateway import TraceConfig
from runtime.session.session import RequestSession

logger = logging.getLogger(__name__)

KEPT_ROWS: Final = 10_000
"""Rows held in memory while the folder cannot be written; older ones are lost first."""

_SPAN = pa.struct(
    [
        ("text", pa.string()),
        ("author", pa.string()),
        ("step", pa.int32()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("final", pa.bool_()),
    ]
)
_MEMBER = pa.struct(
    [
        ("name", pa.string()),
        ("calls", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost", pa.float64()),
        ("seconds", pa.float64()),
        ("retries", pa.int64()),
        ("dropped_at_step", pa.int32()),
        ("dropped_because", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("trace_id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("caller", pa.string()),
        ("model", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("stop_reason", pa.string()),
        ("error", pa.string()),
        ("seconds", pa.float64()),
        ("cost", pa.float64()),
        ("spans", pa.list_(_SPAN)),
        ("members", pa.list_(_MEMBER)),
        ("state", pa.string()),
        ("request_id", pa.string()),
    ]
)


def record(
    session: RequestSession[Any, Any], *, stop_reason: str, error: str | None, store_text: bool
) -> dict[str, Any]:
    """One row of the trace. Without ``store_text`` no prompt, answer or span text is kept."""
    query = session.query
    prompt = query.prompt
    if prompt is None:
        prompt = json.dumps([{"role": m.role, "content": m.content} for m in query.messages])
    return {
        "trace_id": query.id,
        "time": int(time.time() * 1e6),
        "caller": query.caller,
        "model": query.model,
        "method": session.config.method,
        "seed": query.seed,
        "prompt": prompt if store_text else None,
        "answer": session.text if store_text else None,
        "stop_reason": stop_reason,
        "error": error,
        "seconds": session.ledger.elapsed,
        "cost": session.ledger.spent().cost,
        "spans": [
            {
                "text": span.text if store_text else None,
                "author": span.author,
                "step": span.step,
                "scores": list(span.scores.items()),
                "final": span.final,
            }
            for span in session.spans
        ],
        "members": [_member(session, name) for name in session.ledger.usage],
        "state": json.dumps(session.state) if store_text else None,
        "request_id": query.request_id or None,
    }


def _member(session: RequestSession[Any, Any], name: str) -> Mapping[str, Any]:
    usage, dropped = session.ledger.usage[name], session.dropped.get(name)
    return {
        "name": name,
        "calls": usage.calls,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": usage.cost,
        "seconds": usage.seconds,
        "retries": usage.retries,
        "dropped_at_step": None if dropped is None else dropped.step,
        "dropped_because": None if dropped is None else dropped.reason,
    }


class TraceLog:
    """Collects rows and writes them a file at a time, since Parquet files cannot grow."""

    def __init__(self, config: TraceConfig, seconds: float = 2.0) -> None:
        self.config = config
        self._folder = Path(config.folder) if config.folder else None
        self._seconds = seconds
        self._waiting: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()

    def add(
        self, session: RequestSession[Any, Any], stop_reason: str, error: str | None = None
    ) -> None:
        """Takes a row; it is on disk soon after ``seconds``."""
        if self._folder is None:
            return
        row = record(
            session, stop_reason=stop_reason, error=error, store_text=self.config.store_text
        )
        with self._lock:
            self._waiting.append(row)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._write_soon)

    def _write_soon(self) -> None:
        """Writes in a thread: a slow disk must not delay answers."""
        self._timer = None
        asyncio.get_running_loop().run_in_executor(None, self.flush)

    def flush(self) -> None:
        """Writes the waiting rows. A file appears whole or not at all; rows that cannot be written
        are written with the next flush."""
        with self._lock:
            rows, self._waiting = self._waiting, []
        if not rows or self._folder is None:
            return
        name = f"trace-{int(time.time() * 1000)}-{uuid.uuid4().hex[:8]}"
        partial = self._folder / f".{name}.partial"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)
            partial.rename(self._folder / f"{name}.parquet")
        except OSError as fault:
            logger.error("cannot write the trace to %s: %s", self._folder, fault)
            with self._lock:
                self._waiting = [*rows, *self._waiting][-KEPT_ROWS:]
