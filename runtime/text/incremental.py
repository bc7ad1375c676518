"""Incremental tokenisation of one text for one member: appending a span tokenises only the tail."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from runtime.tokenization.split_points import stable_from
from runtime.tokenization.tokenizer import Tokenizer


class Context:
    """A prompt and the answer so far, as one member's token ids.

    At all times ``answer_ids == tokenizer.encode(text)``. The answer's text before ``_settled``
    never changes its ids: that offset is a proven split point of the tokenizer
    (runtime/tokenization/split_points.py) with at least four words after it. A text without such a
    split point is tokenised whole each time. Added text is tokenised when ids are read.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], text: str = "") -> None:
        self.tokenizer = tokenizer
        self._ids = list(prompt_ids)
        self._prompt_length = len(self._ids)
        self._text = ""
        self._added: list[str] = []  # not tokenised yet
        self._settled = 0  # characters of the answer
        self._settled_ids = self._prompt_length
        self.append(text)

    @property
    def ids(self) -> list[int]:
        """Prompt and answer ids."""
        self._catch_up()
        return list(self._ids)

    @property
    def prompt_ids(self) -> list[int]:
        return self._ids[: self._prompt_length]

    @property
    def text(self) -> str:
        """The answer so far."""
        self._catch_up()
        return self._text

    @property
    def answer_ids(self) -> list[int]:
        self._catch_up()
        return self._ids[self._prompt_length :]

    def append(self, text: str) -> None:
        """Adds ``text`` of any author to the end of the answer."""
        if text:
            self._added.append(text)

    def _catch_up(self) -> None:
        if not self._added:
            return
        text = "".join(self._added)
        self._added.clear()
        border, before, after = self._tail(text)
        self._ids[self._settled_ids :] = [*before, *after]
        self._text += text
        self._settled += border
        self._settled_ids += len(before)

    def preview(self, text: str) -> tuple[int, list[int]]:
        """``(n, tail)`` such that ``ids[:n] + tail`` would be the ids after ``append(text)``.

        ``n`` is maximal; it lies before the current end when the last token merges with the new
        text. The context is not changed.
        """
        self._catch_up()
        if not text:
            return len(self._ids), []
        _border, before, after = self._tail(text)
        tail = before + after
        old = self._ids[self._settled_ids :]
        pairs = zip(old, tail, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return self._settled_ids + same, tail[same:]

    def _tail(self, text: str) -> tuple[int, list[int], list[int]]:
        """The unsettled text with ``text`` added: its next split point, the ids before and
        after."""
        tail = self._text[self._settled :] + text
        border = self.tokenizer.splits.last_before(tail, stable_from(tail))
        before = self.tokenizer.encode(tail[:border]) if border else []
        return border, before, self.tokenizer.encode(tail[border:])
