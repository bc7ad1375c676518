"""The interface of a model behind the HTTP endpoint: an ensemble, or one member alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from runtime.types.events import Event
from runtime.types.query import Query


class Ensemble(Protocol):
    """A model. All errors are ``runtime.errors``."""

    def answer(self, query: Query) -> AsyncIterator[Event]:
        """``Scored`` if ``query.score_prompt``, ``Written`` events, then one ``Ended``. Errors are
        raised before the first event or between events. Cancelling the task that iterates, or
        ``aclose()``, cancels all member calls."""
        ...

    async def card(self) -> dict[str, Any]:
        """``{"method", "level", "members": [name, ...], "supports": {"stream": bool, ...},
        "max_model_len": tokens, "tokenizer", "kind": "ensemble" | "member"}`` and, where there is
        one, ``"fingerprint"``, a hash of the configuration. Raises an ``OrchestrionError`` while
        members load. ``"scoreless"`` says why ``"logprobs"`` or ``"echo"`` is not supported.
        """
        ...

    async def decode(self, ids: Sequence[int]) -> str:
        """Decodes token ids with the reporting member's tokenizer. Raises ``BadRequest`` for ids
        outside its vocabulary."""
        ...
