"""The newest finished requests, for clients that cannot read extra fields of a reply."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any


class TraceStore:
    """Holds the ``keep`` newest traces in this process. Without ``store_text`` the texts of a full
    trace are left out."""

    def __init__(self, keep: int, store_text: bool = True) -> None:
        self._keep = keep
        self._store_text = store_text
        self._traces: OrderedDict[tuple[str | None, str], Mapping[str, Any]] = OrderedDict()

    def of(self, caller: str | None) -> LocalTraceStore:
        """The traces of one API key (``caller``); ``None``: of all requests without keys."""
        return LocalTraceStore(self, caller)

    def record(self, trace: Mapping[str, Any], caller: str | None) -> None:
        stored = trace if self._store_text else _without_text(trace)
        self._traces[caller, trace["id"]] = stored
        while len(self._traces) > self._keep:
            self._traces.popitem(last=False)

    def find(self, id: str, caller: str | None) -> Mapping[str, Any] | None:
        """By trace id, id of a choice, or id of the reply."""
        bare = id.removeprefix("chatcmpl-").removeprefix("cmpl-").split("-")[0]
        return self._traces.get((caller, bare))


class LocalTraceStore:
    """The traces of one caller."""

    def __init__(self, traces: TraceStore, caller: str | None) -> None:
        self._traces = traces
        self._caller = caller

    def record(self, trace: Mapping[str, Any]) -> None:
        self._traces.record(trace, self._caller)

    def find(self, id: str) -> Mapping[str, Any] | None:
        return self._traces.find(id, self._caller)


def _without_text(trace: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy without the keys that hold texts, in the summary and in each choice."""
    if "ensemble" not in trace:
        return trace
    stored = {key: value for key, value in trace["ensemble"].items() if key != "full"}
    if "choices" in stored:
        stored["choices"] = [
            {key: value for key, value in one.items() if key != "full"} for one in stored["choices"]
        ]
    return {**trace, "ensemble": stored}
