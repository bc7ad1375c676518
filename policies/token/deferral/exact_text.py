"""An answer as exact token ids of a tokenizer shared by the members that write it in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from runtime.session.session import Session
from runtime.text.draft import Draft
from runtime.tokenization.tokenizer import Tokenizer
from runtime.types.outputs import EngineFinish
from runtime.types.spans import Span, TokenChoice, packed, unpacked

LONGEST_WAIT: Final = 16
"""Most tokens held back until a character is complete."""


@dataclass(frozen=True, slots=True)
class Written:
    """One token and its author."""

    id: int
    author: str
    choice: TokenChoice | None = None
    """Its logprob and alternatives, when requested."""


class ExactText:
    """Stores the ids in the session's state, so that another coordinator resumes from exactly
    these, and commits complete characters as spans of one author each."""

    def __init__(self, session: Session, tokenizer: Tokenizer) -> None:
        self._session, self._tokenizer = session, tokenizer
        state = session.state
        self.ids: list[int] = state.setdefault("ids", [])
        self._waiting = [
            Written(id_, author, choice and unpacked(choice))
            for id_, author, choice in state.setdefault("waiting", [])
        ]
        """The end of ``ids``: tokens since the last complete character."""

    def take(self, tokens: Sequence[Written], end: Written | None = None) -> list[Span]:
        """Adds tokens and returns the committed spans. ``end``: the EOS after them, not part of the
        text."""
        self.ids += [token.id for token in tokens]
        self._waiting += tokens
        spans = self._commit(end)
        self._session.state["waiting"] = [
            [token.id, token.author, token.choice and packed(token.choice)]
            for token in self._waiting
        ]
        return spans

    def _commit(self, end: Written | None) -> list[Span]:
        """Commits up to the last complete character, or all at the end."""
        ids = [token.id for token in self._waiting]
        whole = self._tokenizer.whole_characters(ids)
        if end is not None or len(ids) - whole >= LONGEST_WAIT:
            whole = len(ids)
        ready, self._waiting = self._waiting[:whole], self._waiting[whole:]
        parts, silent = self._by_character(ready)
        if end is None:
            self._waiting = [*silent, *self._waiting]
        runs = [
            (author, [token for _, part in run for token in part])
            for author, run in groupby(parts, key=lambda part: part[0])
        ]
        if end is not None and (not runs or runs[-1][0] != end.author):
            runs.append((end.author, []))
        spans: list[Span] = []
        for place, (author, run) in enumerate(runs):
            if self._session.ending is None:
                last = place == len(runs) - 1
                spans.append(self._span(author, run, end if last else None))
        return spans

    def _by_character(
        self, tokens: Sequence[Written]
    ) -> tuple[list[tuple[str, list[Written]]], list[Written]]:
        """Groups of tokens that each complete a character, by the author of the last token; and the
        tokens at the end without text, such as control tokens, which form no span."""
        parts: list[tuple[str, list[Written]]] = []
        open_: list[Written] = []
        for token in tokens:
            open_.append(token)
            ids = [one.id for one in open_]
            if self._tokenizer.whole_characters(ids) == len(ids) and self._tokenizer.decode(ids):
                parts.append((token.author, open_))
                open_ = []
        if open_ and self._tokenizer.decode([one.id for one in open_]):
            parts.append((open_[-1].author, open_))
            open_ = []
        return parts, open_

    def _span(self, author: str, tokens: Sequence[Written], end: Written | None) -> Span:
        choices = [token.choice for token in tokens if token.choice is not None]
        if end is not None and end.choice is not None:
            choices.append(replace(end.choice, data=b""))
        text = self._tokenizer.decode([token.id for token in tokens])
        finish: EngineFinish = "length" if end is None else "eos"
        draft = Draft(author, text, (), final=end is not None, finish=finish)
        return self._session.commit(draft, tokens=choices)
