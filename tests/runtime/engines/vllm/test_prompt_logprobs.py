"""Rows of logprobs as vLLM gives them, and which of them its prefix cache swallows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.vllm.prefix_tracker import PrefixTracker
from runtime.engines.vllm.prompt_logprobs import (
    distribution,
    missing_rows,
    row,
    tops,
    uncached_ranges,
)
from runtime.errors import EngineFault
from runtime.types.outputs import ALL


@dataclass
class Flat:
    """The part of ``vllm.logprobs.FlatLogprobs`` that is read."""

    start_indices: list[int] = field(default_factory=list)
    end_indices: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def append(self, *pairs: tuple[int, float]) -> None:
        self.start_indices.append(len(self.token_ids))
        self.token_ids += [token for token, _ in pairs]
        self.logprobs += [value for _, value in pairs]
        self.end_indices.append(len(self.token_ids))


def flat() -> Flat:
    flat = Flat()
    flat.append()  # the first token of a text has nothing before it
    flat.append((7, -2.0), (1, -0.5), (7, -2.0))
    flat.append((4, -1.0), (4, -1.0), (2, -1.0))
    return flat


def test_a_row_begins_with_the_token_itself() -> None:
    plain = row(flat(), 1, 0)
    assert (plain.logprob, plain.top) == (-2.0, None)
    best = row(flat(), 1, 2)
    assert best.top is not None and best.top.ids is not None
    assert best.top.ids.tolist() == [1, 7]
    assert best.top.logprobs.tolist() == [-0.5, -2.0]


def test_a_row_whose_token_is_reported_once_only_keeps_it() -> None:
    flat = Flat()
    flat.append((2, -0.1), (0, -3.0), (1, -4.0))  # outputs that vLLM put together
    best = row(flat, 0, 2).top
    assert best is not None and best.ids is not None and best.ids.tolist() == [2, 0]
    dense = row(flat, 0, ALL).top
    assert dense is not None and dense.logprobs.tolist() == pytest.approx([-3.0, -4.0, -0.1])


def test_equal_alternatives_come_by_lowest_id() -> None:
    [top] = tops([row(flat(), 2, 2)], 2) or ()
    assert top.ids is not None and top.ids.tolist() == [2, 4]


def test_alternatives_of_none_are_none() -> None:
    assert tops([row(flat(), 1, 0)], 0) is None


def test_an_empty_row_is_a_fault_not_a_number() -> None:
    with pytest.raises(EngineFault, match="no logprobs"):
        row(flat(), 0, 0)


def test_a_dense_row_is_indexed_by_token() -> None:
    dense = distribution(np.array([2, 0, 1]), np.array([-0.1, -3.0, -4.0], np.float32), ALL)
    assert dense.ids is None
    assert dense.logprobs.tolist() == pytest.approx([-3.0, -4.0, -0.1])


def test_rows_before_the_cached_tokens_are_missing() -> None:
    # tokens 10 and 11 have their rows at positions 9 and 10
    assert missing_rows(10, 9) == 0
    assert missing_rows(10, 10) == 1
    assert missing_rows(10, 16) == 7


@given(
    start=st.integers(1, 300),
    length=st.integers(1, 300),
    block=st.sampled_from([1, 2, 16, 32]),
)
def test_no_cache_of_whole_blocks_can_swallow_a_piece(start: int, length: int, block: int) -> None:
    end = start + length
    cut = uncached_ranges(start, end, block)
    assert [a for a, _ in cut] == [start, *(b for _, b in cut[:-1])] and cut[-1][1] == end
    for a, b in cut:
        fed = b - 1  # the last token is not fed
        held = (fed - 1) // block * block  # at least one fed token is left to compute
        assert missing_rows(a, held) == 0
    assert len(cut) <= length // block + 2


def test_prefixes_are_warm_by_whole_blocks_and_the_oldest_are_forgotten() -> None:
    warm = PrefixTracker(block=4, capacity=3)
    text = list(range(11))
    assert warm.missing(text) == 11
    warm.add(text)
    assert warm.missing(text) == 3
    assert warm.missing([*text, 11, 12]) == 5
    assert warm.missing([*text[:4], 99, *text[5:]]) == 7, "a text that differs shares one block"
    assert warm.missing(text[1:]) == 10
    warm.add([50, 51, 52, 53, 54, 55, 56, 57])
    assert warm.missing(text) == 11, "its first block was the oldest"
