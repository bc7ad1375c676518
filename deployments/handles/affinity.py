"""Which replica serves which request: the one whose cache holds its prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from runtime.call_context import CallContext

MAX_REQUESTS: Final = 8192
"""Most requests whose replica is stored; the least recently used are removed."""


def affinity_key(call_context: CallContext) -> str:
    """The key that Serve hashes to choose a replica. A retried call has another key, so with
    several replicas it usually goes to another one."""
    return (
        f"{call_context.request}/{call_context.attempt}"
        if call_context.attempt
        else call_context.request
    )


class ReplicaAffinity:
    """Learns from replies which replica serves each request.

    An unknown request has a place of its own. In a shared message only the key of the first request
    chose the replica; another request that was assigned to a different replica is removed, to be
    learned from a message of its own.
    """

    def __init__(self) -> None:
        self._replicas: OrderedDict[str, str] = OrderedDict()

    def of(self, call_context: CallContext) -> str:
        """The replica of a request, or the request's own key if it is unknown."""
        key = affinity_key(call_context)
        return self._replicas.get(key, key)

    def learn(self, sent: Sequence[CallContext], replica: str) -> None:
        """Records that ``replica`` served a message with calls of these contexts, routed by the
        first."""
        first, *others = sent
        key = affinity_key(first)
        self._replicas[key] = replica
        self._replicas.move_to_end(key)
        for call_context in others:
            key = affinity_key(call_context)
            if self._replicas.get(key, replica) != replica:
                del self._replicas[key]
        while len(self._replicas) > MAX_REQUESTS:
            self._replicas.popitem(last=False)
