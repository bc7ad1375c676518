from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.text.words import complete_words, cut_partial_word, cut_words


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" ", 0),
        ("one", 0),
        ("one ", 1),
        (" one two", 1),
        ("one\ttwo\n", 2),
        ("a\u00a0b\u2003", 2),
        ("東京 は", 1),
    ],
)
def test_a_word_is_complete_when_white_space_follows(text: str, count: int) -> None:
    assert complete_words(text) == count


@pytest.mark.parametrize(
    ("text", "n", "kept"),
    [
        (" one two three", 2, " one two"),
        (" one two three", 0, ""),
        ("one  \n two ", 1, "one"),
        ("one  \n two ", 2, "one  \n two"),
        ("one two", 5, "one two"),
        ("  ", 1, "  "),
        ("", 3, ""),
    ],
)
def test_cutting_after_so_many_words(text: str, n: int, kept: str) -> None:
    assert cut_words(text, n) == kept


@given(text=st.text(alphabet="ab \n\t"), n=st.integers(0, 6))
def test_a_cut_text_has_so_many_words_and_begins_the_text(text: str, n: int) -> None:
    cut = cut_words(text, n)
    assert text.startswith(cut)
    assert len(cut.split()) == min(n, len(text.split()))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("the capital of Fra", "the capital of"),
        ("the capital of France.", "the capital of France."),
        ("the capital of ", "the capital of "),
        ("the capital\n\nof", "the capital"),
        ("capital", "capital"),
        (" capital", " capital"),
        ("in the year 20", "in the year"),
        ("don't sto", "don't"),
        ("it is 東京", "it is 東京"),
        ("นี่คือ ประเทศไทย", "นี่คือ ประเทศไทย"),
        ("это столи", "это"),
        ("यह राजधानी", "यह"),
        ("안녕 하세", "안녕"),
        ("well 😀", "well 😀"),
        ("well ❤\ufe0f", "well ❤\ufe0f"),
        ("", ""),
    ],
)
def test_a_last_word_that_may_go_on_is_cut_off(text: str, kept: str) -> None:
    assert cut_partial_word(text) == kept
