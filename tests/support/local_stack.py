"""The whole stack on table models, in one process, for the tests of every room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from deployments.config.app_config import AppConfig
from deployments.launch.in_process import LocalStack
from runtime.types.events import Checkpoint, Ended, Written
from runtime.types.query import Message, Query

WORDS = {
    "": {" the": 1},
    " the": {" cat": 3, " dog": 2},
    " cat": {" sat": 4, " ran": 1},
    " dog": {" ran": 4, " sat": 1},
    " sat": {".": 1},
    " ran": {".": 1},
    ".": {"<eos>": 1},
}
CAT = {
    "type": "table",
    "vocabulary": [" the", " cat", " dog", " sat", " ran", "."],
    "table": WORDS,
}
"""Prefers cats, in whole words."""
DOG = {
    "type": "table",
    "vocabulary": [" t", "he", " ca", " do", "t", "g", " sa", " ra", "n"],
    "table": {
        "": {" t": 1},
        " t": {"he": 1},
        " the": {" ca": 1, " do": 9},
        " ca": {"t": 1},
        " do": {"g": 1},
        " cat": {" sa": 1, " ra": 1},
        " dog": {" sa": 1, " ra": 3},
        " sa": {"t": 1},
        " ra": {"n": 1},
        " sat": {".": 1},
        " ran": {".": 1},
        ".": {"<eos>": 1},
    },
}
"""Prefers dogs, in pieces of words."""


def animals(**ensembles: dict[str, Any]) -> dict[str, Any]:
    """Two table models that disagree about the animal, and ensembles of both."""
    return {
        "members": {"cat": {"engine": CAT}, "dog": {"engine": DOG}},
        "ensembles": {
            name: {"members": ["cat", "dog"], **fields} for name, fields in ensembles.items()
        },
    }


@dataclass
class Answer:
    text: str
    written: list[Written]
    end: Ended

    @property
    def summary(self) -> Any:
        return self.end.summary

    def member(self, name: str) -> Any:
        return next(m for m in self.summary["members"] if m["model"] == name)


@asynccontextmanager
async def running(config: dict[str, Any]) -> AsyncIterator[LocalStack]:
    stack = LocalStack(AppConfig.model_validate(config))
    try:
        yield stack
    finally:
        await stack.close()


async def ask(
    stack: LocalStack, model: str, checkpoint: Checkpoint | None = None, **fields: Any
) -> Answer:
    """One answer with everything that happened on the way."""
    fields.setdefault("messages", (Message("user", "Who?"),))
    query = Query(id="t", model=model, **fields)
    events = [event async for event in stack.models[model].answer(query, checkpoint)]
    written = [event for event in events if isinstance(event, Written)]
    end = events[-1]
    assert isinstance(end, Ended)
    assert sum(isinstance(event, Ended) for event in events) == 1
    return Answer("".join(event.text for event in written), written, end)


async def answers(config: dict[str, Any], model: str, **fields: Any) -> Answer:
    async with running(config) as stack:
        return await ask(stack, model, **fields)
