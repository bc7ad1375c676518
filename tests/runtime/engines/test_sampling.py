"""Choosing a token and ending a text, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.engines.sampling import (
    Ending,
    check_sampling,
    distribution,
    nucleus,
    pick,
    uniform,
)
from runtime.errors import BadRequest
from runtime.rng import token_keys
from runtime.types.outputs import ALL
from runtime.types.sampling import Sampling


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


TEMPERED = (
    (1.0, 1.0, [0.1, 0.4, 0.2, 0.3]),
    (0.5, 1.0, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
    (1.0, 0.65, [0.0, 4 / 7, 0.0, 3 / 7]),
    (1.0, 0.05, [0.0, 1.0, 0.0, 0.0]),
)


@pytest.mark.parametrize(("temperature", "top_p", "expected"), TEMPERED)
def test_sampling_follows_the_tempered_and_truncated_distribution(
    temperature: float, top_p: float, expected: list[float]
) -> None:
    row = np.log(np.array([0.1, 0.4, 0.2, 0.3], dtype=np.float32))
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=1)
    counts = np.bincount([pick(row, sampling, i) for i in range(4000)], minlength=4)
    assert (counts / 4000).tolist() == pytest.approx(expected, abs=0.025)


KEYS = token_keys([b"", b"the", b" cat", b" sat"])


@pytest.mark.parametrize(("temperature", "top_p", "expected"), TEMPERED)
@pytest.mark.parametrize("places", (4000, 1))
def test_noise_keyed_by_text_follows_it_too_over_places_and_over_seeds(
    temperature: float, top_p: float, expected: list[float], places: int
) -> None:
    row = np.log(np.array([0.1, 0.4, 0.2, 0.3], dtype=np.float32))
    draws = [
        pick(
            row,
            Sampling(temperature=temperature, top_p=top_p, seed=seed, text_noise_from=3),
            3 + place,
            keys=KEYS,
        )
        for place in range(places)
        for seed in range(4000 // places)
    ]
    counts = np.bincount(draws, minlength=4)
    assert (counts / 4000).tolist() == pytest.approx(expected, abs=0.025)


@pytest.mark.parametrize("top_p", (1.0, 0.8))
def test_noise_keyed_by_text_draws_alike_from_a_shuffled_vocabulary(top_p: float) -> None:
    shuffle = np.random.default_rng(0)
    row, order = shuffle.normal(size=60), shuffle.permutation(60)
    keys = token_keys([str(i).encode() for i in range(60)])
    for seed in range(200):
        # The second model's prompt is longer by 30 tokens; what counts is the place in the answer.
        one = Sampling(temperature=1.0, top_p=top_p, seed=seed, text_noise_from=5)
        other = Sampling(temperature=1.0, top_p=top_p, seed=seed, text_noise_from=35)
        drawn = pick(row[order], other, 35 + seed % 7, keys=keys[order])
        assert order[drawn] == pick(row, one, 5 + seed % 7, keys=keys)


def test_models_that_differ_draw_the_same_token_as_often_as_gumbels_do() -> None:
    one, other = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.5, 0.2])
    # token i wins in both with probability 1 / sum_j max(p_j / p_i, q_j / q_i)
    expected = 2 / (1 + 5 / 3 + 2 / 3) + 1 / (1 + 5 / 2 + 5 / 2)
    sampling = Sampling(temperature=1.0, seed=2, text_noise_from=0)
    same = [
        pick(np.log(one), sampling, place, keys=KEYS[:3])
        == pick(np.log(other), sampling, place, keys=KEYS[:3])
        for place in range(4000)
    ]
    assert np.mean(same) == pytest.approx(expected, abs=0.025)


def test_outputs_without_a_token_are_drawn_only_when_the_nucleus_holds_nothing_else() -> None:
    row = np.log(np.array([0.1, 0.1, 0.2, 0.1, 0.5]))
    sampling = Sampling(temperature=1.0, text_noise_from=0)
    assert {pick(row, sampling, i, keys=KEYS) for i in range(100)} == {0, 1, 2, 3}
    narrow = Sampling(temperature=1.0, top_p=0.4, text_noise_from=0)
    assert pick(row, narrow, 0, keys=KEYS) == 4


def test_noise_keyed_by_text_spares_banned_tokens_and_greedy_texts() -> None:
    row = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
    sampling = Sampling(temperature=1.0, text_noise_from=0)
    assert {pick(row, sampling, i, (1, 0), KEYS) for i in range(100)} == {2, 3}
    assert {pick(row, Sampling(text_noise_from=0), i, keys=KEYS) for i in range(9)} == {1}


def test_a_token_without_probability_is_never_sampled() -> None:
    row = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf])
    for sampling in (Sampling(temperature=1.0), Sampling(temperature=1.0, text_noise_from=0)):
        assert {pick(row, sampling, i, keys=KEYS) for i in range(100)} == {1, 3}


def test_the_best_tokens_come_best_first_and_a_dense_row_has_no_ids() -> None:
    row = np.log(np.array([0.1, 0.4, 0.1, 0.4], dtype=np.float32))
    top = distribution(row, 3)
    assert top.ids is not None
    assert top.ids.tolist() == [1, 3, 0]
    assert np.exp(top.logprobs).tolist() == pytest.approx([0.4, 0.4, 0.1])
    dense = distribution(row, ALL)
    assert dense.ids is None and dense.logprobs.tolist() == row.tolist()
    assert distribution(row, 99).logprobs.shape == (4,)


def test_ids_requested_follow_the_best_in_the_order_of_asking() -> None:
    row = np.log(np.array([0.1, 0.4, 0.2, 0.3], dtype=np.float32))
    top = distribution(row, 2, also=(0, 1, 0))
    assert top.ids is not None and top.ids.tolist() == [1, 3, 0, 1, 0]
    assert np.exp(top.logprobs).tolist() == pytest.approx([0.4, 0.3, 0.1, 0.4, 0.1])


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


def test_a_text_ends_with_the_first_token_below_the_probability_it_was_given() -> None:
    def ends(sampling: Sampling, *probabilities: float) -> list[str | None]:
        ending = Ending(sampling, (0,), TABLE, 99)
        return [ending.push(token, np.log(p)) for token, p in enumerate(probabilities, start=1)]

    half = Sampling(99, until_below=0.5)
    assert ends(half, 0.9, 0.51, 0.49) == [None, None, "length"]
    assert ends(half, 0.1) == ["length"]
    assert ends(Sampling(99, until_below=1.0), 1.0, 0.999) == [None, "length"]
    assert ends(Sampling(99), 1e-9, 1e-30) == [None, None]


def test_an_unlikely_token_that_ends_the_text_anyway_keeps_its_own_reason() -> None:
    sure = Sampling(99, until_below=0.9, stop=("lo",), words=1)
    assert Ending(sure, (0,), TABLE, 99).push(0, -5.0) == "eos"
    assert Ending(sure, (0,), TABLE, 99).push(2, -5.0) == "stop"
    ending = Ending(sure, (0,), TABLE, 99)
    assert [ending.push(1), ending.push(3, -5.0)] == [None, "words"]


@pytest.mark.parametrize("wrong", (-0.1, 1.5, float("nan")))
def test_a_threshold_that_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(BadRequest, match="until_below"):
        check_sampling(Sampling(until_below=wrong))
    check_sampling(Sampling(until_below=1.0))
