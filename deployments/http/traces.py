"""The last finished requests, for clients that cannot show the body's extra fields."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any


class Traces:
    """Keeps the ``keep`` newest; memory of this process only."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._traces: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def record(self, trace: Mapping[str, Any]) -> None:
        self._traces[trace["id"]] = trace
        while len(self._traces) > self._keep:
            self._traces.popitem(last=False)

    def find(self, id: str) -> Mapping[str, Any] | None:
        """By trace id, by that of one of the choices, or by the id of the reply."""
        return self._traces.get(id.removeprefix("chatcmpl-").removeprefix("cmpl-").split("-")[0])
