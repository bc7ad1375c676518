from __future__ import annotations

import pytest

from runtime.text.stop_strings import find_stop, safe_length


@pytest.mark.parametrize(
    ("text", "stops", "start", "found"),
    [
        ("one two", ("wo",), 0, 5),
        ("one two", ("two", "ne"), 0, 1),
        ("END of it", ("END",), 5, None),
        ("abcEND", ("END",), 5, 3),
        ("abc", (), 0, None),
    ],
)
def test_the_earliest_stop_string_that_ends_in_new_text_is_found(
    text: str, stops: tuple[str, ...], start: int, found: int | None
) -> None:
    assert find_stop(text, stops, start) == found


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [("abcE", ("END",), 3), ("abcEN", ("END",), 3), ("abcENx", ("END",), 6), ("ab", (), 2)],
)
def test_text_that_may_become_a_stop_string_is_held_back(
    text: str, stops: tuple[str, ...], shown: int
) -> None:
    assert safe_length(text, stops) == shown
