"""What the HTTP face asks of everything that can answer: an ensemble, or one member alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from runtime.types.events import Event
from runtime.types.query import Query


class Ensemble(Protocol):
    """All faults are raised as ``runtime.errors``."""

    def answer(self, query: Query) -> AsyncIterator[Event]:
        """``Scored`` if the query asks for it, ``Written`` events, then one ``Ended``. Errors come
        before the first event or between events. Cancelling the task that iterates, or
        ``aclose()``, cancels all member calls."""
        ...

    async def card(self) -> dict[str, Any]:
        """``{"method", "level", "members": [name, ...], "supports": {"stream": bool, ...},
        "max_model_len": tokens, "tokenizer", "kind": "ensemble" | "member"}`` and, where there is
        one, ``"fingerprint"``, a hash of the configuration. Raises an ``OrchestrionError`` while
        members load. ``"scoreless"`` says why, where ``"logprobs"`` or ``"echo"`` is not supported.
        """
        ...

    async def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids by the reporting member's tokenizer; ``BadRequest`` for ids that it
        does not have."""
        ...
