"""The span methods' decisions, on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from policies.span.base import Round, by_author, distinct
from policies.span.cool_fusion import first_common_end
from policies.span.segments import whole_segment
from policies.span.specem import hedge, rewards
from policies.span.specfuse import leaving, softmax
from policies.span.sweetspan import faithful, whole_words
from runtime.text.draft import Draft, mean_probability, perplexity


def draft(text: str, author: str = "a", final: bool = False, finish: str = "length") -> Draft:
    ends = tuple(range(1, len(text) + 1))
    return Draft(author, text, (-1.0,) * len(text), final, finish, ends, ends)  # type: ignore[arg-type]


def test_perplexity_and_mean_probability_of_two_tokens() -> None:
    logprobs = [math.log(0.5), math.log(0.125)]
    assert perplexity(logprobs) == pytest.approx(4.0)  # sqrt(1 / (0.5 * 0.125))
    assert mean_probability(logprobs) == pytest.approx(0.3125)


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([2.0], [2.0]),
        ([2.0, 19.0], [2.0, 19.0]),
        ([2.0, 21.0], [2.0]),
        ([1.0, 3.0, 9.0], [1.0, 3.0, 9.0]),
        ([30.0, 3.0, 1.0], [3.0]),
        ([1.0, 2.0, 3.0, 11.0], [2.0, 3.0]),
    ],
)
def test_scores_too_far_apart_lose_their_extremes(scores: list[float], kept: list[float]) -> None:
    assert faithful(scores, ratio=10.0) == kept


def test_softmax_weighs_by_exponentials() -> None:
    assert softmax({"a": math.log(3), "b": 0.0}) == pytest.approx({"a": 0.75, "b": 0.25})
    assert softmax({"a": math.log(3), "b": 0.0}, 0.5) == pytest.approx({"a": 0.9, "b": 0.1})


def test_a_member_leaves_only_once_its_share_is_too_small() -> None:
    # Q = (1, 0): u = (0.7311, 0.2689), h = H(u)/ln 2 = 0.8400, p_b = 1/(1 + e^(1/0.84)) = 0.2331
    assert leaving({"a": 1.0, "b": 0.0}, 0.5) == ["b"]  # below 0.25
    assert leaving({"a": 1.0, "b": 0.0}, 0.46) == []  # not below 0.23
    assert leaving({"a": 0.5, "b": 0.5}, 0.5) == []
    assert leaving({"a": 5.0, "b": 0.0}, 0.0) == []
    assert leaving({"a": 0.1}, 0.5) == []


def test_the_best_member_never_leaves() -> None:
    assert leaving({"a": 90.0, "b": 0.0, "c": 89.0}, 0.99) in (["b", "c"], ["b"])


def test_hedge_rewards_the_candidates_that_other_judges_prefer() -> None:
    # Judges b and c prefer a's candidate (0) to both others; nobody else is preferred by anyone.
    scores = {"a": [0.9, 0.5, 0.1], "b": [0.8, 0.7, 0.2], "c": [0.6, 0.3, 0.5]}
    own = {"a": 0, "b": 1, "c": 2}
    # a wins 4 of 4; b wins over c at judge a, loses twice to a, and loses to c at judge c: 1;
    # c: at judge a 0, at judge b 0 -> at least 1.
    assert rewards(own, scores) == {"a": 4 / 4, "b": 1 / 4, "c": 1 / 4}
    even = dict.fromkeys("abc", 1 / 3)
    eta = (10 / 10) * math.sqrt(1 / 3) / 2
    raised = {"a": math.exp(eta), "b": math.exp(eta / 4), "c": math.exp(eta / 4)}
    total = sum(raised.values())
    expected = {name: value / total for name, value in raised.items()}
    assert hedge(even, rewards(own, scores), 10, 2) == pytest.approx(expected)


def test_hedge_without_a_learning_rate_keeps_the_weights() -> None:
    assert hedge({"a": 0.3, "b": 0.7}, {"a": 1.0}, 0.0, 1) == pytest.approx({"a": 0.3, "b": 0.7})


def test_equal_texts_become_one_candidate_with_two_authors() -> None:
    drafts = {"a": draft("x y", "a"), "b": draft("x y", "b"), "c": draft("z", "c")}
    round_ = distinct(drafts)
    assert [c.text for c in round_.candidates] == ["x y", "z"]
    assert by_author(round_, [0.5, 0.2]) == {"a": 0.5, "b": 0.5, "c": 0.2}


def test_the_same_text_with_and_without_an_end_are_two_candidates() -> None:
    round_ = distinct({"a": draft("x", "a"), "b": draft("x", "b", final=True)})
    assert len(round_.candidates) == 2


def test_empty_drafts_are_left_out_unless_they_end_the_answer() -> None:
    empty, ending = draft("", "a"), draft("", "c", final=True)
    kept = distinct({"a": empty, "b": draft("x", "b"), "c": ending})
    assert [c.author for c in kept.candidates] == ["b", "c"]
    assert isinstance(distinct({"a": empty}), Round)


def test_a_segment_loses_its_unfinished_last_word_only_when_cut_by_length() -> None:
    assert whole_segment(draft(" The sky is bl")).text == " The sky is"
    assert whole_segment(draft(" The sky.")).text == " The sky."
    assert whole_segment(draft(" Sky")).text == " Sky"
    assert whole_segment(draft(" The sky is bl", final=True, finish="eos")).text == " The sky is bl"


def test_a_cut_draft_keeps_the_logprobs_of_the_tokens_that_remain() -> None:
    whole = Draft("a", " The sky", (-0.1, -0.2, -0.3), False, "words", (1, 2, 3), (4, 6, 8))
    cut = whole.cut(6)
    assert (cut.text, cut.logprobs) == (" The s", (-0.1, -0.2))
    assert whole.cut(2).logprobs == (-0.1,)
    assert whole.cut(8) is whole


def test_whole_words_leave_the_white_space_to_the_next_span() -> None:
    assert whole_words(draft(" one two three"), 2).text == " one two"


def test_the_first_word_border_common_to_all_tokenizers_is_taken() -> None:
    by_punctuation, by_space = [6, 7, 11], [7, 11]
    assert first_common_end([by_punctuation, by_space], 0, 11) == 7
    assert first_common_end([by_punctuation], 0, 11) == 6
    assert first_common_end([[11], [11]], 0, 11) is None
    assert first_common_end([[3, 7], [3, 7]], 3, 9) == 7
