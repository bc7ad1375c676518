"""One tokenizer with the exact bytes of its tokens.

Members read and write each other's text, so tokens are compared by their bytes. Only the
``tokenizers`` library is needed: a coordinator rebuilds every member's tokenizer from a
``TokenizerDefinition``, without the checkpoint and without torch.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as LibraryTokenizer

from runtime.rng import token_keys
from runtime.tokenization import chat_template
from runtime.tokenization.byte_table import token_table
from runtime.tokenization.files import (
    bare_document,
    continuation_document,
    read_folder,
    write_document,
)
from runtime.tokenization.split_points import Splits, prove
from runtime.tokenization.word_vocab import BOS, EOS, vocabulary_json
from runtime.types.query import Message

CACHED_LENGTH, CACHED_TEXTS = 4096, 512
"""Encodings of texts up to ``CACHED_LENGTH`` characters are cached, ``CACHED_TEXTS`` of them:
searches encode the same prefixes repeatedly."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_PIECE = re.compile("(?<=<)(?=0x[0-9A-F]{2}>)")
_INSIDE_WORD = re.compile(r"(?<=\S)(?=\s|\Z)")


@dataclass(frozen=True, slots=True)
class TokenizerDefinition:
    """Everything needed to rebuild a tokenizer elsewhere without the checkpoint folder."""

    json: str
    """The ``tokenizer.json`` of the tokenizers library."""
    chat_template: str | None
    bos: str | None
    eos: str | None
    eos_ids: tuple[int, ...]
    """All EOS ids; the first one is used for writing."""
    add_bos: bool
    """Whether BOS is added before a raw prompt."""

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of all fields."""
        return _fingerprint(self)


@lru_cache(maxsize=64)
def _fingerprint(known: TokenizerDefinition) -> str:
    rest = [known.chat_template, known.bos, known.eos, known.eos_ids, known.add_bos]
    digest = hashlib.sha256(known.json.encode())
    digest.update(json.dumps(rest).encode())
    return digest.hexdigest()


class Tokenizer:
    """Text to ids and back. Safe to share between threads.

    ``token_bytes`` holds the exact bytes of each id (``b""`` for control tokens and unused ids),
    ``special_ids`` the control tokens: those marked special, BOS and EOS ids.
    """

    definition: TokenizerDefinition
    vocab_size: int
    eos_ids: tuple[int, ...]
    token_bytes: list[bytes]
    special_ids: frozenset[int]
    splits_words: bool
    """Whether the pre-tokenizer splits text into words."""

    splits: Splits
    """The proven split points."""

    def __init__(self, definition: TokenizerDefinition) -> None:
        document = json.loads(definition.json)
        bare = bare_document(document)
        self.definition = definition
        self.eos_ids = definition.eos_ids
        self.token_bytes, self.special_ids = token_table(
            document, {definition.bos, definition.eos}, definition.eos_ids
        )
        self.vocab_size = len(self.token_bytes)
        # Most tokenizers need one form for prompts and continuations; a large one takes 300 MB.
        self._lock = threading.Lock()
        self._prompt = LibraryTokenizer.from_str(
            definition.json if bare == document else write_document(bare)
        )
        continuation = continuation_document(bare, self.special_ids)
        self._plain = (
            self._prompt
            if continuation == bare
            else LibraryTokenizer.from_str(write_document(continuation))
        )
        self.splits_words = len(set(self._read("one two three").word_ids)) > 1
        # A unigram model reads a spelled-out byte piece such as <0x0A> as that byte.
        self._spells_bytes = self.token_id("<0x41>") in self._read("<0x41>").ids
        self._encoded = lru_cache(CACHED_TEXTS)(self._encode)
        self.splits = prove(self, document)

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[TokenizerDefinition]]:
        return Tokenizer, (self.definition,)

    @classmethod
    def from_folder(cls, path: Path) -> Tokenizer:
        """The tokenizer of a checkpoint folder; raises ``WeightsError`` when it has none."""
        return cls(TokenizerDefinition(**read_folder(path)))

    def encode(self, text: str) -> list[int]:
        """The ids of ``text`` as the continuation of something.

        No BOS and no added space before the first word; control tokens spelled out in the text
        are plain text; lone surrogates become U+FFFD.
        """
        return list((self._encoded if len(text) <= CACHED_LENGTH else self._encode)(text))

    def _encode(self, text: str) -> tuple[int, ...]:
        pieces = _BYTE_PIECE.split(text) if self._spells_bytes and "<0x" in text else [text]
        return tuple(i for piece in pieces for i in self._read(piece).ids)

    def encode_each(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of many texts, on all cores. It blocks other readers: pass some thousands at a
        time."""
        with self._lock:
            self._plain.encode_special_tokens = True
            read = self._plain.encode_batch_fast([_SURROGATE.sub("\ufffd", t) for t in texts])
            found = [list(encoding.ids) for encoding in read]
        if self._spells_bytes:
            for place, text in enumerate(texts):
                if "<0x" in text:
                    found[place] = self.encode(text)
        return found

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a raw prompt: control tokens are parsed, BOS is added if ``add_bos``."""
        with self._lock:
            self._prompt.encode_special_tokens = False
            ids = list(self._prompt.encode(_SURROGATE.sub("\ufffd", text)).ids)
        bos_id = self.token_id(self.definition.bos) if self.definition.add_bos else None
        return ids if bos_id is None or ids[:1] == [bos_id] else [bos_id, *ids]

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation, up to the start of the assistant's answer.

        Uses the checkpoint's chat template, or the plain ``User: … Assistant:`` form without one.
        Raises ``BadRequest`` when the template rejects the conversation.
        """
        return self.encode_prompt(self.chat_text(messages))

    def chat_text(self, messages: Sequence[Message]) -> str:
        """The prompt text that ``chat`` encodes."""
        known = self.definition
        if known.chat_template is None:
            return chat_template.plain_chat(messages)
        return chat_template.render_chat(known.chat_template, messages, known.bos, known.eos)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ``ids``; ids beyond the vocabulary (the model's padding) have none."""
        table, size = self.token_bytes, self.vocab_size
        return b"".join(table[i] for i in ids if i < size)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids`` without control tokens; U+FFFD for invalid bytes."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def whole_characters(self, ids: Sequence[int]) -> int:
        """The largest number of leading ids whose bytes end at a character boundary.

        Invalid bytes count as whole characters.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        whole = 0
        for count, token in enumerate(ids, start=1):
            decoder.decode(self.decode_bytes((token,)))
            if not decoder.getstate()[0]:
                whole = count
        return whole

    def word_ends(self, text: str) -> list[int]:
        """Character offsets in ``text`` at which one of this tokenizer's own words ends.

        Words are the pre-tokenizer's pieces, or white-space words for tokenizers whose
        pre-tokenizer splits nothing. The end of the text counts as the end of its last word.
        """
        if not self.splits_words:
            return [m.start() for m in _INSIDE_WORD.finditer(text)]
        encoding = self._read(text)
        words, offsets = encoding.word_ids, encoding.offsets
        last = [i for i in range(len(words)) if words[i : i + 1] != words[i + 1 : i + 2]]
        return sorted({offsets[i][1] for i in last})

    @cached_property
    def noise_keys(self) -> np.ndarray:
        """The key of each token for keyed noise (runtime/rng.py): uint64 [vocab_size]."""
        return token_keys(self.token_bytes)

    @cached_property
    def ids_of(self) -> Mapping[bytes, int]:
        """Exact bytes -> id; of several ids the one that ``encode`` gives, else the lowest."""
        found: dict[bytes, int] = {}
        ambiguous: set[bytes] = set()
        for token, data in enumerate(self.token_bytes):
            if data and token not in self.special_ids:
                if data in found:
                    ambiguous.add(data)
                else:
                    found[data] = token
        for data in ambiguous:
            written = self.encode(data.decode("utf-8", errors="ignore"))
            if len(written) == 1 and self.token_bytes[written[0]] == data:
                found[data] = written[0]
        return found

    @property
    def own_size(self) -> int:
        """Vocabulary size without added tokens, which may have no embeddings."""
        return int(self._prompt.get_vocab_size(with_added_tokens=False))

    def token_id(self, text: str | None) -> int | None:
        """The id of the vocabulary entry ``text``, if there is one."""
        found = None if text is None else self._prompt.token_to_id(text)
        return None if found is None else int(found)

    def _read(self, text: str) -> Encoding:
        """``text`` as a continuation. Lone surrogates, which are no text, become U+FFFD."""
        with self._lock:
            self._plain.encode_special_tokens = True
            return self._plain.encode(_SURROGATE.sub("\ufffd", text))


def vocabulary_tokenizer(words: Sequence[str], specials: Sequence[str] = ()) -> TokenizerDefinition:
    """The tokenizer of a scripted model; raises ``ConfigError`` for empty or repeated words.

    Ids: ``words`` in order, the 256 single bytes, "<bos>", "<eos>", then ``specials``. A text is
    cut into the fewest pieces (ties are deterministic); BOS leads every prompt.
    """
    document, eos_id = vocabulary_json(words, specials)
    return TokenizerDefinition(
        json=document,
        chat_template=None,
        bos=BOS,
        eos=EOS,
        eos_ids=(eos_id,),
        add_bos=True,
    )
