"""Which replica serves which request, as replies teach it."""

from __future__ import annotations

import pytest

from deployments.handles import affinity
from deployments.handles.affinity import ReplicaAffinity, affinity_key
from runtime.call_context import CallContext

A, B, C = CallContext("a"), CallContext("b"), CallContext("c")


def test_requests_of_one_replica_come_to_share_its_place() -> None:
    affinities = ReplicaAffinity()
    assert affinities.of(A) != affinities.of(B)
    affinities.learn([A], "one")
    affinities.learn([B], "one")
    affinities.learn([C], "two")
    assert affinities.of(A) == affinities.of(B) == "one"
    assert affinities.of(C) == "two"


def test_only_the_request_that_chose_the_replica_is_learned() -> None:
    affinities = ReplicaAffinity()
    affinities.learn([A, B], "one")
    assert affinities.of(A) == "one"
    assert affinities.of(B) == "b", "its own key may lead elsewhere"


def test_a_request_that_was_served_elsewhere_than_believed_is_called_alone_again() -> None:
    affinities = ReplicaAffinity()
    affinities.learn([A], "one")
    affinities.learn([B], "one")
    affinities.learn([A, B], "two")  # the replicas have changed
    assert (affinities.of(A), affinities.of(B)) == ("two", "b")


def test_a_repeated_call_goes_by_another_key() -> None:
    again = CallContext("a", attempt=1)
    assert affinity_key(again) != affinity_key(A)
    affinities = ReplicaAffinity()
    affinities.learn([A], "one")
    assert affinities.of(again) not in ("one", "a")


def test_old_requests_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "MAX_REQUESTS", 2)
    affinities = ReplicaAffinity()
    for call_context in (A, B, C):
        affinities.learn([call_context], "one")
    assert [affinities.of(call_context) for call_context in (A, B, C)] == ["a", "one", "one"]
