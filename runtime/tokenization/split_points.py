"""Split points: offsets at which a tokenizer provably splits, so that the rest can be encoded
alone.

Two kinds are tried: before a space that follows a visible character ("end| of"), and before a
letter that begins a line ("end\\n|of"). No normalizer joins across them: neither a space nor a
letter combines with the character before it. Two conditions remain, checked once for each tokenizer
and kind: no token spans the split point (its vocabulary is read), and the pre-tokenizer looks no
further (a sample is encoded whole and in pieces).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from runtime.tokenization.byte_table import walk

UNSTABLE_WORDS: Final = 4
"""Words at the end of a text that are always encoded again."""

_WORD = re.compile(r"\S+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_JOINED = re.compile(r"(?=(\S |\n\w|\n\ufffd))")

_SAMPLE = (
    "The cat's 12,345.67 old friends don't run; they'll \"walk\" (slowly) to www.example.org!\n"
    "def f(x, y=[1]):\n\treturn x**2  # ok...\nend\n\nNew  line\r\n  indented 'quote' of HTML "
    "<b>bold</b> text</p> and\tTab —dash– déjà vu naïve Ünï ＡＢ １２ ﬁn e\u0301te\nprivate int "
    "a_b = 007; // C++ => ok\nZwölf Boxkämpfer 東京 は 日本 の首都です。 Привет мир, "
    "العربية نص عربي 한국어 문장 हिन्दी में 😀 👍🏽 👩\u200d👧 fine ½ x² ™ US$ 5% ~a ^b `c` "
    "\u00a0 nbsp x\n\u00c9t\u00e9 A B C\n1. One 2. Two\n- item {json: 'v'} [0] ; ; ,, .. x y\n"
    "z <0x41> <s> </s> <bos> ▁ z\n"
)


class Encoder(Protocol):
    """The tokenizer interface that ``prove`` needs."""

    @property
    def token_bytes(self) -> list[bytes]: ...
    @property
    def splits_words(self) -> bool: ...
    def token_id(self, token: str | None) -> int | None: ...
    def encode(self, text: str) -> list[int]: ...
    def word_ends(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Splits:
    """The proven kinds of split points of one tokenizer."""

    space: bool
    line: bool
    joined: frozenset[str] = frozenset()
    """Character pairs around a split point that some token spans, such as ">" and " " in "> </";
    U+FFFD stands for a character of which the token holds a part."""

    def last_before(self, text: str, limit: int) -> int:
        """The last split point of ``text`` at or before ``limit``; 0 without one.

        It depends on the text only, not on what may be appended to it.
        """
        for at in range(min(limit, len(text) - 1), 0, -1):
            if self.at(text, at):
                return at
        return 0

    def at(self, text: str, at: int) -> bool:
        """Whether ``at`` is a proven split point of ``text``."""
        left, right = text[at - 1], text[at]
        if right == " ":
            return self.space and _visible(left) and not self._joins(left + right)
        if left == "\n":
            # The character before the line break counts too: white space in a row is one piece
            # in many tokenizers, cut in two only when more text follows.
            before = at > 1 and _visible(text[at - 2])
            return self.line and before and right.isalpha() and not self._joins(left + right)
        return False

    def _joins(self, pair: str) -> bool:
        return pair in self.joined or _NOT_ASCII.sub("\ufffd", pair) in self.joined


def stable_from(text: str) -> int:
    """Offset of the last ``UNSTABLE_WORDS`` words of ``text``; 0 when it has no more than these."""
    starts = [match.start() for match in _WORD.finditer(text)]
    return starts[-UNSTABLE_WORDS] if len(starts) > UNSTABLE_WORDS else 0


def prove(tokenizer: Encoder, document: Mapping[str, Any]) -> Splits:
    """The kinds of split points at which ``tokenizer``, made from ``document``, always splits."""
    if not _reads_pieces_alone(tokenizer, document):
        return Splits(space=False, line=False)
    alone = _model_joins_only_by_vocabulary(document["model"])
    joined = _joined(tokenizer.token_bytes)
    space = Splits(space=True, line=False, joined=joined)
    line = Splits(space=False, line=True, joined=joined)
    return Splits(
        space=(alone or _pre_tokenizer_cuts(tokenizer, "aa bb", 2)) and _agrees(tokenizer, space),
        line=(alone or _pre_tokenizer_cuts(tokenizer, "aa\nbb", 3)) and _agrees(tokenizer, line),
        joined=joined,
    )


def _reads_pieces_alone(tokenizer: Encoder, document: Mapping[str, Any]) -> bool:
    """Whether only tokens and the pre-tokenizer could span a split point."""
    model = document["model"]
    unknown = model.get("unk_id")
    if unknown is None:
        unknown = tokenizer.token_id(model.get("unk_token"))
    if unknown is not None and unknown in tokenizer.encode("a b\nc"):
        return False  # unknown pieces in a row are fused into one
    if any(token["rstrip"] and not token["special"] for token in document["added_tokens"]):
        return False  # such a token absorbs the space after it
    return all(part["type"] != "Strip" for part in walk(document.get("normalizer")))


def _model_joins_only_by_vocabulary(model: Mapping[str, Any]) -> bool:
    """Whether both sides of an offset that no token spans are encoded independently."""
    if model["type"] == "Unigram":
        # Rounding of a running sum may break a tie one way in a long text, another in a short one.
        return all(float(score).is_integer() for _piece, score in model["vocab"])
    return model["type"] == "BPE" and not model.get("ignore_merges")


def _pre_tokenizer_cuts(tokenizer: Encoder, text: str, at: int) -> bool:
    return tokenizer.splits_words and at in tokenizer.word_ends(text)


def _joined(table: list[bytes]) -> frozenset[str]:
    """The character pairs around a split point that occur inside tokens."""
    pairs: set[str] = set()
    for token in table:
        if b" " in token[1:] or b"\n" in token[:-1]:
            pairs.update(_JOINED.findall(token.decode("utf-8", errors="replace")))
    return frozenset(pairs)


def _agrees(tokenizer: Encoder, splits: Splits) -> bool:
    cuts = [at for at in range(1, len(_SAMPLE)) if splits.at(_SAMPLE, at)]
    whole = tokenizer.encode(_SAMPLE)
    if whole != [i for piece in _cut(_SAMPLE, cuts) for i in tokenizer.encode(piece)]:
        return False
    return all(
        whole == tokenizer.encode(_SAMPLE[:at]) + tokenizer.encode(_SAMPLE[at:])
        for at in cuts[:: max(1, len(cuts) // 16)]
    )


def _cut(text: str, cuts: list[int]) -> Iterator[str]:
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        yield text[start:end]


def _visible(char: str) -> bool:
    """A character no normalizer turns into white space, removes, or joins with what follows.

    SentencePiece makes a space of "▁" and of U+FFFD; marks and format characters belong to their
    neighbours.
    """
    return unicodedata.category(char)[0] in "LNPS" and char not in "▁\ufffd"
