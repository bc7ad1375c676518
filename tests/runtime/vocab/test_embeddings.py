"""Embedding tables: fetched in chunks, cached as float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.config.engines import TableEngine
from runtime.engines.scripted.models import TableLM
from runtime.types.outputs import Tokens
from runtime.vocab import embeddings, vector_table


class CountingLM(TableLM):
    """Remembers how many embeddings each call asked for; ``shift`` stands for other weights."""

    def __init__(self, *texts: str, shift: float = 0.0) -> None:
        super().__init__(TableEngine(vocabulary=texts, table={}))
        self.requested: list[int] = []
        self.shift = shift

    async def vectors(self, ids: Tokens) -> np.ndarray:
        self.requested.append(len(ids))
        return await super().vectors(ids) + self.shift


async def test_a_table_is_fetched_in_chunks_and_then_only_probed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK_IDS", 100)
    engine = CountingLM("cat", "dog")  # 2 + 256 + 2 = 260 tokens
    table = await vector_table(engine)
    assert engine.requested == [16, 100, 100, 60]
    assert (table.dtype, table.shape) == (np.float16, (260, 32))
    assert np.array_equal(table, await engine.vectors(range(260)))
    assert not table.flags.writeable
    engine.requested.clear()
    assert np.array_equal(await vector_table(engine), table)
    assert engine.requested == [16]


async def test_a_reply_is_kept_small_where_embeddings_are_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 50 * 32 * 4)
    engine = CountingLM("cat", "dog")
    await vector_table(engine)
    assert engine.requested == [16, 50, 50, 50, 50, 50, 10]


async def test_other_weights_under_the_same_name_get_another_table(cache: Path) -> None:
    before = await vector_table(CountingLM("cat"))
    after = await vector_table(CountingLM("cat", shift=1.0))
    assert np.array_equal(after, before + 1)
    assert len(list((cache / "vectors").iterdir())) == 2


@pytest.mark.parametrize("harm", ["empty", "cut", "text", "other numbers", "another shape"])
async def test_a_damaged_table_is_fetched_again(cache: Path, harm: str) -> None:
    engine = CountingLM("cat")
    table = np.array(await vector_table(engine))
    (file,) = (cache / "vectors").iterdir()
    if harm == "empty":
        file.write_bytes(b"")
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif harm == "text":
        file.write_text("not an array")
    elif harm == "other numbers":
        np.save(file, -table)
    else:
        np.save(file, table[:5])
    assert np.array_equal(await vector_table(engine), table)


async def test_numbers_beyond_half_precision_stay_finite() -> None:
    table = await vector_table(CountingLM("cat", shift=1e9))
    assert np.isfinite(table).all()
