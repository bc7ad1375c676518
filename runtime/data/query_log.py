"""A query log in Parquet: answers recorded once from live members, for replay in training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from runtime.errors import ConfigError

SCHEMA: Final = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("previous", pa.string()),
        pa.field("member", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("cost", pa.float64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
ABOUT: Final = b"orchestrion"
"""Metadata key of the recording conditions: prompts, sampling and prices."""


class Unrecorded(ConfigError):
    """The log does not hold a requested call."""

    def __init__(self, call: MemberCall) -> None:
        shown = "nothing" if call.previous is None else repr(call.previous)
        super().__init__(
            f"the query log has no answer of {call.member!r} to {call.question!r} after {shown}; "
            "record it with `orchestrion record`, or train on live members"
        )


def write(path: Path, rows: Iterable[tuple[MemberCall, Reply]], about: Mapping[str, Any]) -> None:
    """Writes a log. ``about`` holds the recording conditions, which ``Replay`` compares."""
    table = pa.Table.from_pylist(
        [
            {
                "question": call.question,
                "previous": call.previous,
                "member": call.member,
                "answer": reply.text,
                "cost": reply.cost,
                "seconds": reply.seconds,
                "error": reply.error,
            }
            for call, reply in rows
        ],
        schema=SCHEMA.with_metadata({ABOUT: json.dumps(about, sort_keys=True).encode()}),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(path.suffix + ".part")
    pq.write_table(table, draft)
    draft.replace(path)


class Replay:
    """Recorded answers in place of live members.

    Raises at construction: ``ConfigError`` for a file that is no readable query log, or that was
    recorded under other conditions than ``about``.
    """

    def __init__(self, path: Path, about: Mapping[str, Any] | None = None) -> None:
        try:
            table = pq.read_table(path)
            recorded = json.loads((table.schema.metadata or {}).get(ABOUT, b"{}"))
        except (OSError, pa.ArrowException, ValueError) as fault:
            raise ConfigError(
                f"cannot read the query log {path} ({fault}); make one with `orchestrion record`"
            ) from None
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if missing:
            raise ConfigError(f"{path} is no query log: it lacks the columns {', '.join(missing)}")
        self.about: dict[str, Any] = recorded
        for key, expected in (about or {}).items():
            if self.about.get(key) != expected:
                raise ConfigError(
                    f"{path} was recorded with {key} {self.about.get(key)!r}, and {expected!r} is "
                    "configured; record it anew with `orchestrion record`"
                )
        self._replies = {
            MemberCall(row["member"], row["question"], row["previous"]): Reply(
                row["answer"], row["cost"], row["seconds"], row["error"]
            )
            for row in table.to_pylist()
        }

    def __len__(self) -> int:
        return len(self._replies)

    def ask(self, calls: Sequence[MemberCall]) -> list[Reply]:
        """Raises ``Unrecorded``."""
        return [self._find(call) for call in calls]

    def find(self, call: MemberCall) -> Reply | None:
        """The recorded reply, if there is one."""
        return self._replies.get(call)

    def _find(self, call: MemberCall) -> Reply:
        reply = self.find(call)
        if reply is None:
            raise Unrecorded(call)
        return reply

    def close(self) -> None:
        """Does nothing: no file is held open."""


@dataclass(frozen=True, slots=True)
class MemberCall:
    """One call: a member, the question, and the previous answer in its prompt."""

    member: str
    question: str
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Result of one call."""

    text: str | None
    """``None`` if the call failed."""
    cost: float
    """In the configured currency; a failed call costs what it had used."""
    seconds: float = 0.0
    error: str | None = None
