"""Small scripted models for tests and demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from runtime.config.engines import EchoEngine, TableEngine
from runtime.engines.scripted.base import ScriptedLM, weighted_row
from runtime.engines.scripted.fault_injection import FlakyLM, SlowLM
from runtime.errors import ConfigError
from runtime.tokenization.tokenizer import vocabulary_tokenizer
from runtime.types.outputs import Tokens

__all__ = ["EchoLM", "FlakyLM", "SlowLM", "TableLM"]

ECHO_TEMPLATE = (
    "{% for message in messages %}"
    "<{{ message.role if message.role in ('system', 'assistant') else 'user' }}>"
    "{{ message.content }}"
    "{% endfor %}<assistant>"
)


class TableLM(ScriptedLM):
    """Looks up the next token by the longest suffix of the context's text in the table.

    Without a matching suffix, and without "" in the table, the distribution is uniform. Raises
    ``ConfigError`` for tokens outside the vocabulary and rows without positive weight.
    """

    def __init__(self, config: TableEngine) -> None:
        super().__init__("table", vocabulary_tokenizer(config.vocabulary), config.context_length)
        self._ids = {text: i for i, text in enumerate(config.vocabulary)}
        size = self._spec.vocab_size
        self._rows = {
            suffix.encode(): weighted_row(self._weights(suffix, row), size, config.floor)
            for suffix, row in config.table.items()
        }
        self._rows.setdefault(b"", np.full(size, -np.log(size), dtype=np.float32))
        self._lengths = sorted({len(suffix) for suffix in self._rows}, reverse=True)

    def row(self, context: Tokens) -> np.ndarray:
        text = self._end_of(context, self._lengths[0])
        for length in self._lengths:
            row = self._rows.get(text[len(text) - length :]) if length <= len(text) else None
            if row is not None:
                return row
        raise AssertionError("the empty suffix matches everything")

    def _end_of(self, context: Tokens, length: int) -> bytes:
        pieces: list[bytes] = []
        for token in reversed(context):
            if length <= 0:
                break
            pieces.append(self._tokenizer.token_bytes[token])
            length -= len(pieces[-1])
        return b"".join(reversed(pieces))

    def _weights(self, suffix: str, row: dict[str, float]) -> dict[int, float]:
        if any(weight < 0 for weight in row.values()) or sum(row.values()) <= 0:
            raise ConfigError(f"table row {suffix!r} needs weights of at least 0, not all 0")
        return {self._id(suffix, text): weight for text, weight in row.items()}

    def _id(self, suffix: str, text: str) -> int:
        if text == self._tokenizer.definition.eos:
            return self._spec.eos_ids[0]
        if text in self._ids:
            return self._ids[text]
        single = text.encode()
        if len(single) == 1:
            return len(self._ids) + single[0]
        raise ConfigError(f"table row {suffix!r} names {text!r}; add it to vocabulary")


class EchoLM(ScriptedLM):
    """Repeats the last user message, its words joined by single spaces, then ends.

    Its tokens are single bytes; control tokens in its chat template mark the roles. If the answer
    was continued with other text, it continues after the same number of words. A prompt without a
    user message is answered with EOS.
    """

    FLOOR = 1e-6

    def __init__(self, config: EchoEngine) -> None:
        plain = vocabulary_tokenizer((), ("<system>", "<user>", "<assistant>"))
        tokenizer = replace(plain, chat_template=ECHO_TEMPLATE)
        super().__init__("echo", tokenizer, config.context_length)
        self._user = self._tokenizer.token_id("<user>")
        self._assistant = self._tokenizer.token_id("<assistant>")

    def row(self, context: Tokens) -> np.ndarray:
        rest = self._rest(list(context))
        token = rest[0] if rest else self._spec.eos_ids[0]
        return weighted_row({token: 1.0}, self._spec.vocab_size, self.FLOOR)

    def _rest(self, context: list[int]) -> bytes:
        """The rest of the answer; a byte's value is its id."""
        reply_at = _last(context, self._assistant)
        message_at = _last(context[:reply_at], self._user) or reply_at
        words = self._tokenizer.decode_bytes(context[message_at:reply_at]).split()
        reply = self._tokenizer.decode_bytes(context[reply_at:])
        written = reply.split()
        left = words[len(written) :]
        if not written or reply[-1:].isspace():
            return b" ".join(left)
        same = words[len(written) - 1] if len(written) <= len(words) else b""
        end = same.removeprefix(written[-1]) if same.startswith(written[-1]) else b""
        return b" ".join((end, *left))


def _last(tokens: Sequence[int], marker: int | None) -> int:
    """Index after the last ``marker``; 0 without one."""
    found = [i for i, token in enumerate(tokens, start=1) if token == marker]
    return found[-1] if found else 0
