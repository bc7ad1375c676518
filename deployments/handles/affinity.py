"""Which replica serves which request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from runtime.call_context import CallContext

REMEMBERED: Final = 8192
"""Requests whose replica is known; the least recently asked are forgotten."""


def affinity_key(call_context: CallContext) -> str:
    """What Serve hashes. A call that failed is repeated under another key, and so, where there are
    several replicas, usually on another one."""
    return (
        f"{call_context.request}/{call_context.attempt}"
        if call_context.attempt
        else call_context.request
    )


class Places:
    """Learns from replies where each request is served.

    A request that is not known yet is a place of its own. In a shared message only the first
    request's key chose the replica; another that was believed elsewhere is forgotten, to be learned
    from a message of its own.
    """

    def __init__(self) -> None:
        self._replicas: OrderedDict[str, str] = OrderedDict()

    def of(self, call_context: CallContext) -> str:
        """The replica, or the request's own key."""
        key = affinity_key(call_context)
        return self._replicas.get(key, key)

    def learn(self, sent: Sequence[CallContext], replica: str) -> None:
        """A message with calls on these terms, the first of which chose, was served there."""
        first, *others = sent
        key = affinity_key(first)
        self._replicas[key] = replica
        self._replicas.move_to_end(key)
        for call_context in others:
            key = affinity_key(call_context)
            if self._replicas.get(key, replica) != replica:
                del self._replicas[key]
        while len(self._replicas) > REMEMBERED:
            self._replicas.popitem(last=False)
