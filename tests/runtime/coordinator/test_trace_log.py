"""The Parquet trace."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from runtime.config.gateway import TraceConfig
from runtime.coordinator.trace_log import TraceLog
from runtime.errors import QuorumLost
from runtime.types.events import Ended
from runtime.types.query import Message, Query
from tests.support.local_stack import animals, ask, running

SWEET = {"type": "sweetspan", "span_words": 1}
WHO = (Message("user", "Who?"),)


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder).to_pylist()


async def test_every_answer_leaves_a_row_that_reports_who_wrote_what(tmp_path: Path) -> None:
    config = animals(e=SWEET) | {"trace": {"folder": str(tmp_path / "t")}}
    async with running(config) as stack:
        answer = await ask(stack, "e")
        await ask(stack, "cat")
        for model in stack.models.values():
            model.close()
    result = {row["model"]: row for row in rows(tmp_path / "t")}
    assert set(result) == {"e", "cat"}
    row = result["e"]
    assert row["answer"] == answer.text == "".join(span["text"] for span in row["spans"])
    assert row["stop_reason"] == "eos"
    assert {member["name"] for member in row["members"]} == {"cat", "dog"}
    assert "Who?" in row["prompt"]


async def test_the_trace_can_be_set_to_store_no_text(tmp_path: Path) -> None:
    config = animals(e=SWEET) | {"trace": {"folder": str(tmp_path), "store_text": False}}
    async with running(config) as stack:
        await ask(stack, "e")
        stack.models["e"].close()
    [row] = rows(tmp_path)
    assert row["prompt"] is None
    assert row["answer"] is None
    assert all(span["text"] is None for span in row["spans"])


async def test_an_answer_that_failed_is_in_the_trace_too(tmp_path: Path) -> None:
    config = animals(e=SWEET | {"quorum": 2}) | {"trace": {"folder": str(tmp_path)}}
    dog = config["members"]["dog"]["engine"]
    config["members"]["dog"]["engine"] = {"type": "flaky", "engine": dog, "fails_from": 4}
    async with running(config) as stack:
        with pytest.raises(QuorumLost):
            await ask(stack, "e")
        stack.models["e"].close()
    [row] = rows(tmp_path)
    assert row["stop_reason"] == "error"
    assert "dog" in row["error"]
    dog_row = next(member for member in row["members"] if member["name"] == "dog")
    assert dog_row["dropped_because"]


async def test_an_answer_whose_client_left_is_distinguished_from_a_failed_one(
    tmp_path: Path,
) -> None:
    config = animals(e=SWEET) | {"trace": {"folder": str(tmp_path)}}
    async with running(config) as stack:
        events = stack.models["e"].answer(Query(id="t", model="e", messages=WHO))
        assert await anext(events)
        await events.aclose()
    [row] = rows(tmp_path)
    assert row["stop_reason"] == "cancelled"
    assert row["error"] is None


async def test_a_client_that_leaves_with_the_whole_answer_did_not_cancel_it(tmp_path: Path) -> None:
    config = animals(e=SWEET) | {"trace": {"folder": str(tmp_path)}}
    async with running(config) as stack:
        events = stack.models["e"].answer(Query(id="t", model="e", messages=WHO))
        while not isinstance(await anext(events), Ended):
            continue
        await events.aclose()
    [row] = rows(tmp_path)
    assert row["stop_reason"] == "eos"


async def test_rows_that_cannot_be_written_are_kept_until_they_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "t"
    folder.write_text("in the way")
    config = animals(e=SWEET) | {"trace": {"folder": str(folder)}}
    async with running(config) as stack:
        answer = await ask(stack, "e")
        stack.models["e"].close()
        assert "cannot write the trace" in caplog.text
        folder.unlink()
    [row] = rows(folder)
    assert row["answer"] == answer.text


async def test_rows_reach_the_disk_without_being_requested(tmp_path: Path) -> None:
    log = TraceLog(TraceConfig(folder=str(tmp_path)), seconds=0.01)
    async with running(animals(e=SWEET)) as stack:
        coordinator = stack.models["e"]
        coordinator._traces = log
        await ask(stack, "e")
        async with asyncio.timeout(10):
            while not list(tmp_path.glob("*.parquet")):
                await asyncio.sleep(0.01)
    assert len(rows(tmp_path)) == 1
