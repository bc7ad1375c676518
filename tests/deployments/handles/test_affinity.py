"""Which replica serves which request, as replies teach it."""

from __future__ import annotations

import pytest

from deployments.handles import affinity
from deployments.handles.affinity import Places, affinity_key
from runtime.call_context import CallContext

A, B, C = CallContext("a"), CallContext("b"), CallContext("c")


def test_requests_of_one_replica_come_to_share_its_place() -> None:
    places = Places()
    assert places.of(A) != places.of(B)
    places.learn([A], "one")
    places.learn([B], "one")
    places.learn([C], "two")
    assert places.of(A) == places.of(B) == "one"
    assert places.of(C) == "two"


def test_only_the_request_that_chose_the_replica_is_learned() -> None:
    places = Places()
    places.learn([A, B], "one")
    assert places.of(A) == "one"
    assert places.of(B) == "b", "its own key may lead elsewhere"


def test_a_request_that_was_served_elsewhere_than_believed_is_asked_alone_again() -> None:
    places = Places()
    places.learn([A], "one")
    places.learn([B], "one")
    places.learn([A, B], "two")  # the replicas have changed
    assert (places.of(A), places.of(B)) == ("two", "b")


def test_a_repeated_call_goes_by_another_key() -> None:
    again = CallContext("a", attempt=1)
    assert affinity_key(again) != affinity_key(A)
    places = Places()
    places.learn([A], "one")
    assert places.of(again) not in ("one", "a")


def test_old_requests_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "REMEMBERED", 2)
    places = Places()
    for call_context in (A, B, C):
        places.learn([call_context], "one")
    assert [places.of(call_context) for call_context in (A, B, C)] == ["a", "one", "one"]
