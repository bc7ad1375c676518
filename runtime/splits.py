"""Places where a tokenizer provably splits, so that the text after them can be tokenised alone.

Two borders are tried: before a space that follows a visible character ("end| of"), and before a
letter that begins a line ("end\\n|of"). No normalizer joins across them: neither a space nor a
letter combines with what stands before it. What remains to be shown, once for each tokenizer and
border, is that no token reaches across (its vocabulary is read) and that the pre-tokenizer looks
no further (a sample is encoded whole and in pieces).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runtime.token_bytes import walk

if TYPE_CHECKING:
    from runtime.tokens import Tokenizer

KEPT_WORDS: Final = 4
"""Words at the end of a text that are always tokenised again."""

_WORD = re.compile(r"\S+")
_SPACE_INSIDE = re.compile(r"\S ")
_LINE_INSIDE = re.compile(r"\n\w")

_SAMPLE = (
    "The cat's 12,345.67 old friends don't run; they'll \"walk\" (slowly) to www.example.org!\n"
    "def f(x, y=[1]):\n\treturn x**2  # ok...\nend\n\nNew  line\r\n  indented 'quote' of HTML "
    "<b>bold</b> text</p> and\tTab —dash– déjà vu naïve Ünï ＡＢ １２ ﬁn e\u0301te\nprivate int "
    "a_b = 007; // C++ => ok\nZwölf Boxkämpfer 東京 は 日本 の首都です。 Привет мир, "
    "العربية نص عربي 한국어 문장 हिन्दी में 😀 👍🏽 👩\u200d👧 fine ½ x² ™ US$ 5% ~a ^b `c` \u00a0 nbsp x\n"
    "\u00c9t\u00e9 A B C\n1. One 2. Two\n- item {json: 'v'} [0] ; ; ,, .. x y\n"
    "z <0x41> <s> </s> <bos> ▁ z\n"
)


@dataclass(frozen=True, slots=True)
class Splits:
    """Which borders are proven for one tokenizer."""

    space: bool
    line: bool

    def last_before(self, text: str, limit: int) -> int:
        """The last border of ``text`` at or before ``limit``; 0, its beginning, if there is none.

        Only the text decides, never what may be appended to it.
        """
        for at in range(min(limit, len(text) - 1), 0, -1):
            if self.at(text, at):
                return at
        return 0

    def at(self, text: str, at: int) -> bool:
        """Whether ``text[at]`` begins right after a proven border."""
        if text[at] == " ":
            return self.space and _visible(text[at - 1])
        if text[at - 1] == "\n":
            # The character before the line break counts too: white space in a row is one piece
            # in many tokenizers, cut in two only when more text follows.
            return self.line and text[at].isalpha() and at > 1 and _visible(text[at - 2])
        return False


def kept_from(text: str) -> int:
    """Where the last ``KEPT_WORDS`` words of ``text`` begin; 0 when it has no more than these."""
    starts = [match.start() for match in _WORD.finditer(text)]
    return starts[-KEPT_WORDS] if len(starts) > KEPT_WORDS else 0


def prove(tokenizer: Tokenizer, document: Mapping[str, Any]) -> Splits:
    """The borders at which ``tokenizer``, made from ``document``, always splits."""
    if not _reads_pieces_alone(tokenizer, document):
        return Splits(space=False, line=False)
    alone = _model_joins_only_by_vocabulary(document["model"])
    space, line = _borders_outside_tokens(tokenizer.token_bytes)
    space = space and (alone or _pre_tokenizer_cuts(tokenizer, "aa bb", 2))
    line = line and (alone or _pre_tokenizer_cuts(tokenizer, "aa\nbb", 3))
    return Splits(
        space=space and _agrees(tokenizer, Splits(space=True, line=False)),
        line=line and _agrees(tokenizer, Splits(space=False, line=True)),
    )


def _reads_pieces_alone(tokenizer: Tokenizer, document: Mapping[str, Any]) -> bool:
    """Whether nothing but tokens and the pre-tokenizer could reach across a border."""
    model = document["model"]
    unknown = model.get("unk_id")
    if unknown is None:
        unknown = tokenizer.token_id(model.get("unk_token"))
    if unknown is not None and unknown in tokenizer.encode("a b\nc"):
        return False  # unknown pieces in a row are fused into one
    if any(token["rstrip"] and not token["special"] for token in document["added_tokens"]):
        return False  # such a token swallows the space after it
    return all(part["type"] != "Strip" for part in walk(document.get("normalizer")))


def _model_joins_only_by_vocabulary(model: Mapping[str, Any]) -> bool:
    """Whether both sides of a place that no token crosses are encoded as if alone."""
    if model["type"] == "Unigram":
        # Rounding of a running sum may break a tie one way in a long text, another in a short one.
        return all(float(score).is_integer() for _piece, score in model["vocab"])
    return model["type"] == "BPE" and not model.get("ignore_merges")


def _pre_tokenizer_cuts(tokenizer: Tokenizer, text: str, at: int) -> bool:
    return tokenizer.splits_words and at in tokenizer.word_ends(text)


def _borders_outside_tokens(table: list[bytes]) -> tuple[bool, bool]:
    """Whether no token reaches across a border before a space, and after a line break."""
    space = line = True
    for token in table:
        if b" " in token[1:] or b"\n" in token[:-1]:
            text = token.decode("utf-8", errors="replace")
            space = space and not _SPACE_INSIDE.search(text)
            # A character cut short becomes U+FFFD; it may have been a letter.
            line = line and not _LINE_INSIDE.search(text.replace("\ufffd", "a"))
    return space, line


def _agrees(tokenizer: Tokenizer, splits: Splits) -> bool:
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
