"""The ``tokenizer.json`` of a scripted model: a list of words, with single bytes as fallback."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import Unigram

from runtime.errors import ConfigError

BOS, EOS = "<bos>", "<eos>"

_WORD_SCORE = -1.0
# Whole numbers keep sums exact, so equal cuts tie exactly and a tie never depends on the context.
_BYTE_SCORE = -1000.0


def vocabulary_json(words: Sequence[str], specials: Sequence[str]) -> tuple[str, int]:
    """``tokenizer.json`` text and the id of "<eos>".

    Each ASCII character is a piece, so segmentations of ASCII text are ranked by their number of
    pieces; other characters take one piece for each byte, unless a word covers them.
    """
    markers = (BOS, EOS, *specials)
    for what, texts in (("vocabulary", words), ("specials", markers)):
        if "" in texts or len(set(texts)) != len(texts):
            raise ConfigError(f"{what} holds an empty or repeated text; remove it")
    if shared := set(words) & set(markers):
        raise ConfigError(f"vocabulary holds control tokens {sorted(shared)}; remove them")
    known = set(words)
    pieces = [(word, _WORD_SCORE) for word in words]
    for byte in range(256):
        single = byte < 128 and chr(byte) not in known
        pieces.append((chr(byte), _WORD_SCORE) if single else (f"<0x{byte:02X}>", _BYTE_SCORE))
    # 0xFF occurs in no UTF-8 text, so its id is free to be the unknown piece the model must name.
    model = Unigram(pieces, unk_id=len(words) + 255, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in markers])
    return tokenizer.to_str(), len(pieces) + 1
