"""In short what ``python -m tests.integration.chaos`` does at length: streams survive what is
killed."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from tests.integration.chaos.__main__ import run
from tests.integration.chaos.storm import KINDS

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(900)]
QUORUM_IS_GONE = {"quorum_lost"}


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    before = set(psutil.Process().children(recursive=True))
    result = run(requests=50, kills=8, at_once=25, pause=(4.0, 8.0), seed=1)
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, f"processes left behind: {left}"
    return result


def test_every_answer_is_whole_or_ends_with_a_well_formed_error(figures: dict[str, Any]) -> None:
    storm = figures["storm"]
    assert sum(storm["kills"].values()) >= 8 and set(storm["kills"]) == set(KINDS)
    assert storm["reconnected"] > 0, "clients came back"
    assert storm["complete"] + sum(storm["errors"].values()) == storm["requests"] >= 50
    assert set(storm["errors"]) <= QUORUM_IS_GONE
    assert storm["complete"] > 0.9 * storm["requests"]


def test_no_text_is_lost_or_reported_twice(figures: dict[str, Any]) -> None:
    for part in (figures["calm"], figures["storm"], figures["after"]):
        assert part["wrong_text"] == 0


def test_afterwards_everything_is_as_before(figures: dict[str, Any]) -> None:
    assert not figures["calm"]["errors"] and not figures["after"]["errors"]
    assert figures["after"]["complete"] == figures["after"]["requests"]
