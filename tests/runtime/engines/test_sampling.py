"""Choosing a token and ending a text, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.engines.sampling import Ending, distribution, nucleus, pick, uniform
from runtime.types import ALL, Sampling


def test_noise_depends_on_seed_and_position_alone_and_fills_the_unit_interval() -> None:
    draws = [uniform(seed, position) for seed in range(40) for position in range(50)]
    assert draws[:50] == [uniform(0, position) for position in range(50)]
    assert len(set(draws)) == 2000
    assert 0 <= min(draws) < 0.01 and 0.99 < max(draws) < 1
    assert np.mean(draws) == pytest.approx(0.5, abs=0.02)


def test_the_nucleus_is_the_smallest_set_that_holds_the_mass() -> None:
    probabilities = np.array([0.1, 0.4, 0.2, 0.3])
    assert nucleus(probabilities, 0.3).tolist() == [1]
    assert nucleus(probabilities, 0.41).tolist() == [1, 3]
    assert nucleus(probabilities, 0.8).tolist() == [1, 2, 3]
    assert nucleus(probabilities, 1.0).tolist() == [0, 1, 2, 3]
    assert nucleus(np.array([0.25, 0.25, 0.25, 0.25]), 0.5).tolist() == [0, 1]


def test_greedy_takes_the_lowest_id_among_equals_and_never_a_banned_one() -> None:
    row = np.array([0.0, 2.0, 2.0, 1.0], dtype=np.float32)
    assert pick(row, Sampling(), 0) == 1
    assert pick(row, Sampling(), 0, banned=(1,)) == 2
    assert pick(row, Sampling(), 0, banned=(1, 2)) == 3
    assert row.tolist() == [0.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    (
        (1.0, 1.0, [0.1, 0.4, 0.2, 0.3]),
        (0.5, 1.0, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (1.0, 0.65, [0.0, 4 / 7, 0.0, 3 / 7]),
        (1.0, 0.05, [0.0, 1.0, 0.0, 0.0]),
    ),
)
def test_sampling_follows_the_tempered_and_truncated_distribution(
    temperature: float, top_p: float, expected: list[float]
) -> None:
    row = np.log(np.array([0.1, 0.4, 0.2, 0.3], dtype=np.float32))
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=1)
    counts = np.bincount([pick(row, sampling, i) for i in range(4000)], minlength=4)
    assert (counts / 4000).tolist() == pytest.approx(expected, abs=0.025)


def test_a_token_without_probability_is_never_sampled() -> None:
    row = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf])
    sampling = Sampling(temperature=1.0)
    assert {pick(row, sampling, i) for i in range(100)} == {1, 3}


def test_the_best_tokens_come_best_first_and_a_dense_row_has_no_ids() -> None:
    row = np.log(np.array([0.1, 0.4, 0.1, 0.4], dtype=np.float32))
    top = distribution(row, 3)
    assert top.ids is not None
    assert top.ids.tolist() == [1, 3, 0]
    assert np.exp(top.logprobs).tolist() == pytest.approx([0.4, 0.4, 0.1])
    dense = distribution(row, ALL)
    assert dense.ids is None and dense.logprobs.tolist() == row.tolist()
    assert distribution(row, 99).logprobs.shape == (4,)


TABLE = [b"", b"Hel", b"lo", b" wor", b"ld", b" \xe4", b"\xb8", b"\xad", b"\xe3\x80", b"\x80"]


def finishes(sampling: Sampling, tokens: list[int], room: int = 99) -> list[str | None]:
    ending = Ending(sampling, (0,), TABLE, room)
    return [ending.push(token) for token in tokens]


def test_a_stop_string_may_span_tokens_and_characters_may_span_tokens() -> None:
    assert finishes(Sampling(99, stop=("o wo",)), [1, 2, 3]) == [None, None, "stop"]
    assert finishes(Sampling(99, stop=("d \u4e2d",)), [4, 5, 6, 7]) == [None, None, None, "stop"]
    assert finishes(Sampling(99, stop=("Hello!", "lo")), [1, 2]) == [None, "stop"]
    assert finishes(Sampling(99, stop=("x",)), [1, 2, 3]) == [None, None, None]


def test_words_are_complete_when_white_space_follows_them() -> None:
    assert finishes(Sampling(99, words=1), [1, 2, 3]) == [None, None, "words"]
    assert finishes(Sampling(99, words=2), [1, 2, 3, 4]) == [None, None, None, None]
    ideographic_space = [1, 8, 9]
    assert finishes(Sampling(99, words=1), ideographic_space) == [None, None, "words"]


def test_eos_ends_a_text_unless_it_is_ignored_and_the_limits_end_it_anyway() -> None:
    assert finishes(Sampling(99), [1, 0]) == [None, "eos"]
    assert finishes(Sampling(3, ignore_eos=True), [0, 0, 0]) == [None, None, "length"]
    assert finishes(Sampling(99), [1, 2], room=2) == [None, "length"]
    assert finishes(Sampling(2, stop=("lo",)), [1, 2]) == [None, "stop"]
    assert finishes(Sampling(99), [999]) == [None]
