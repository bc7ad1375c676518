"""An answer as exact token ids of one tokenizer that several members share, written in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from policies.token.told import packed, unpacked
from runtime.session import Draft, Session
from runtime.tokens import Tokenizer
from runtime.types import EngineFinish, Span, TokenChoice

LONGEST_WAIT: Final = 16
"""Tokens that are held back at most for the end of a character to come."""


@dataclass(frozen=True, slots=True)
class Written:
    """One token with who wrote it."""

    id: int
    author: str
    told: TokenChoice | None = None
    """As it is told, where somebody asked for that."""


class ExactText:
    """Keeps the ids in the session's state, so that another coordinator goes on from exactly these,
    and commits whole characters as spans of one author each."""

    def __init__(self, session: Session, tokenizer: Tokenizer) -> None:
        self._session, self._tokenizer = session, tokenizer
        state = session.state
        self.ids: list[int] = state.setdefault("ids", [])
        self._waiting = [
            Written(id_, author, told and unpacked(told))
            for id_, author, told in state.setdefault("waiting", [])
        ]
        """At the end of ``ids``: tokens since the last end of a character."""

    def take(
        self, tokens: Sequence[Written], final: bool = False, finish: EngineFinish = "length"
    ) -> list[Span]:
        """Adds tokens. ``final``: their last author ends the answer there; its EOS is no token of
        the text and not among them."""
        self.ids += [token.id for token in tokens]
        self._waiting += tokens
        spans = [*self._commit(final, finish)]
        self._session.state["waiting"] = [
            [token.id, token.author, token.told and packed(token.told)] for token in self._waiting
        ]
        return spans

    def _commit(self, final: bool, finish: EngineFinish) -> list[Span]:
        """What ends with a whole character, or all of it at the end."""
        ids = [token.id for token in self._waiting]
        whole = self._tokenizer.whole_characters(ids)
        if final or len(ids) - whole >= LONGEST_WAIT:
            whole = len(ids)
        ready, self._waiting = self._waiting[:whole], self._waiting[whole:]
        spans: list[Span] = []
        runs = [list(run) for _, run in groupby(self._by_character(ready), key=lambda p: p[0])]
        for place, run in enumerate(runs):
            if self._session.ending is not None:
                break
            last = final and place == len(runs) - 1
            spans.append(self._span([token for _, part in run for token in part], last, finish))
        return spans

    def _by_character(self, tokens: Sequence[Written]) -> list[tuple[str, list[Written]]]:
        """Tokens that end with a whole character each, by the author of the last of them."""
        parts: list[tuple[str, list[Written]]] = []
        open_: list[Written] = []
        for token in tokens:
            open_.append(token)
            ids = [one.id for one in open_]
            if self._tokenizer.whole_characters(ids) == len(ids):
                parts.append((token.author, open_))
                open_ = []
        if open_:
            parts.append((open_[-1].author, open_))
        return parts

    def _span(self, tokens: Sequence[Written], final: bool, finish: EngineFinish) -> Span:
        told = tuple(token.told for token in tokens if token.told is not None)
        text = self._tokenizer.decode([token.id for token in tokens])
        draft = Draft(tokens[-1].author, text, (), final=final, finish=finish)
        return self._session.commit(draft, tokens=told)

    def end(self, author: str, told: TokenChoice | None) -> list[Span]:
        """The author ends the answer; ``told`` is its EOS as it is told."""
        if self._waiting:
            return self.take([], final=True)
        draft = Draft(author, "", (), final=True, finish="eos")
        return [self._session.commit(draft, tokens=() if told is None else (told,))]
