"""The last finished requests, for clients that cannot show the body's extra fields."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any


class TraceStore:
    """Keeps the ``keep`` newest; memory of this process only. Without ``store_text`` what a full
    trace tells of texts is left out."""

    def __init__(self, keep: int, store_text: bool = True) -> None:
        self._keep = keep
        self._store_text = store_text
        self._traces: OrderedDict[tuple[str | None, str], Mapping[str, Any]] = OrderedDict()

    def of(self, caller: str | None) -> LocalTraceStore:
        """Those of one key; of everybody where there are no keys."""
        return LocalTraceStore(self, caller)

    def record(self, trace: Mapping[str, Any], caller: str | None) -> None:
        told = trace if self._store_text else _textless(trace)
        self._traces[caller, trace["id"]] = told
        while len(self._traces) > self._keep:
            self._traces.popitem(last=False)

    def find(self, id: str, caller: str | None) -> Mapping[str, Any] | None:
        """By trace id, by that of one of the choices, or by the id of the reply."""
        bare = id.removeprefix("chatcmpl-").removeprefix("cmpl-").split("-")[0]
        return self._traces.get((caller, bare))


class LocalTraceStore:
    """What one caller records and finds again."""

    def __init__(self, traces: TraceStore, caller: str | None) -> None:
        self._traces = traces
        self._caller = caller

    def record(self, trace: Mapping[str, Any]) -> None:
        self._traces.record(trace, self._caller)

    def find(self, id: str) -> Mapping[str, Any] | None:
        return self._traces.find(id, self._caller)


def _textless(trace: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the keys that hold texts, in the whole and in each choice."""
    if "ensemble" not in trace:
        return trace
    told = {key: value for key, value in trace["ensemble"].items() if key != "full"}
    if "choices" in told:
        told["choices"] = [
            {key: value for key, value in one.items() if key != "full"} for one in told["choices"]
        ]
    return {**trace, "ensemble": told}
